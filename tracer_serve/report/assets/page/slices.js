// Slices: rate with its exact interval against the overall rate, by deferral or by disagreement.
function slices() {
  let event = report.slices.disagreed.slices.length ? "disagreed" : "deferred";
  const wanted = () => report.slices[event].slices.slice(0, 12);
  const narrow = () => $("slices-chart").clientWidth < 600;
  const short = (s) => (s.length > (narrow() ? 17 : 34) ? `${s.slice(0, narrow() ? 16 : 33)}…` : s);
  const drawn = chart("slices-chart", () => {
    const rows = wanted();
    const ink = colour(event === "deferred" ? "deferred" : "error");
    return {
      grid: { left: 8, right: 24, top: 24, bottom: 44, containLabel: true },
      tooltip: {
        ...common().tooltip, trigger: "item",
        formatter: ({ data }) => tip(rows[data[1]].name, [
          `${count(rows[data[1]].events)} of ${count(rows[data[1]].rows)} rows: ${percent(rows[data[1]].rate)}`,
          `95 % interval ${percent(rows[data[1]].interval[0])} to ${percent(rows[data[1]].interval[1])}`,
        ]),
      },
      xAxis: axis(event === "deferred" ? "share deferred" : "share that differs",
        { type: "value", min: 0, splitNumber: narrow() ? 3 : 6, axisLabel: { ...text(), formatter: (x) => percent(x, 0) } }),
      yAxis: axis(undefined, {
        type: "category", inverse: true, data: rows.map((row) => row.name), splitLine: { show: false },
        axisLabel: { ...text(), color: colour("ink"), formatter: short },
      }),
      series: [
        ...rows.map((row, i) => ({
          type: "line", data: [[row.interval[0], i], [row.interval[1], i]], showSymbol: false, silent: true,
          lineStyle: { color: ink, width: 5, opacity: 0.3, cap: "round" },
        })),
        {
          type: "scatter", symbolSize: 13, itemStyle: { color: ink }, data: rows.map((row, i) => [row.rate, i]),
          markLine: {
            symbol: "none", silent: true, lineStyle: { color: colour("ink-soft"), type: "dashed" },
            label: { formatter: "overall", color: colour("ink-soft"), position: "start", rotate: 0 },
            data: [{ xAxis: report.slices[event].rate }],
          },
        },
      ],
    };
  });
  const show = (value) => {
    event = value;
    for (const table of document.querySelectorAll("[data-event]")) table.hidden = table.dataset.event !== event;
    $("slices-figure").hidden = !wanted().length;
    if (drawn && wanted().length) drawn.draw();
  };
  choice($("slices-event"), show);
  for (const button of $("slices-event").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.value === event));
  }
  show(event);
}
