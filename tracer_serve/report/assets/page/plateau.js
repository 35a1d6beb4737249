// The learning curve with its forecast, and coverage over versions.
function plateau() {
  const { points, forecast } = report.plateau;
  const refits = points.filter((p) => p.measured === "refit");
  const sizes = [...new Set(points.map((p) => p.traces))].sort((a, b) => a - b);
  const mean = (size) => {
    const same = points.filter((p) => p.traces === size);
    return same.reduce((sum, p) => sum + p.coverage, 0) / same.length;
  };
  if (!points.length) { $("plateau-chart").hidden = true; return; }
  const last = points.at(-1);
  const from = forecast && [forecast.traces / 2, forecast.now];
  chart("plateau-chart", () => ({
    grid: { left: 58, right: 24, top: 16, bottom: 44 },
    tooltip: {
      ...common().tooltip, trigger: "item",
      formatter: ({ value, seriesName }) => tip(seriesName, [`${count(value[0])} traces: ${percent(value[1])} certified`]),
    },
    xAxis: axis("traces", { type: "log", min: Math.max(1, sizes[0] * 0.8), max: (forecast ? forecast.traces : last.traces) * 1.15,
      axisLabel: { ...text(), formatter: count, hideOverlap: true, customValues: forecast ? [...sizes, forecast.traces] : sizes },
      axisTick: { customValues: sizes }, splitLine: { show: false } }),
    yAxis: axis("certified coverage", { type: "value", min: 0, max: 1, nameGap: 44, axisLabel: { ...text(), formatter: (x) => percent(x, 0) } }),
    series: [
      { name: "mean", type: "line", data: sizes.map((s) => [s, mean(s)]), color: colour("handled"), showSymbol: false, lineStyle: { width: 2.5 } },
      { name: "refit", type: "scatter", data: refits.map((p) => [p.traces, p.coverage]), symbolSize: 8, itemStyle: { color: colour("handled"), opacity: 0.5 } },
      { name: "this version", type: "scatter", data: points.filter((p) => p.measured === "certificate").map((p) => [p.traces, p.coverage]),
        symbolSize: 14, itemStyle: { color: colour("handled"), borderColor: colour("card"), borderWidth: 3 } },
      ...(forecast ? [
        { name: "forecast", type: "line", data: [from, [forecast.traces, forecast.coverage]], color: colour("deferred"),
          lineStyle: { type: "dashed", width: 2 }, symbol: "circle", symbolSize: (_, { dataIndex }) => (dataIndex ? 12 : 0), z: 1 },
        { name: "range", type: "line", data: [[forecast.traces, forecast.low], [forecast.traces, forecast.high]], color: colour("deferred"),
          lineStyle: { width: 5, opacity: 0.3 }, showSymbol: false },
      ] : []),
    ],
  }));
}

function history() {
  const { history: versions } = report.changes;
  if (versions.length < 2) return;
  const day = (created) => created.slice(0, 16).replace("T", " ");
  const line = (name, key, ink, type) => ({
    name, type: "line", color: ink, lineStyle: { type, width: 2.5 }, symbolSize: 8, data: versions.map((v) => v[key]), connectNulls: true,
  });
  chart("history-chart", () => ({
    grid: { left: 48, right: 16, top: 36, bottom: 28 },
    legend: { top: 0, textStyle: text() },
    tooltip: {
      ...common().tooltip, trigger: "axis",
      formatter: ([{ dataIndex: i }]) => tip(day(versions[i].created), [
        `${percent(versions[i].coverage)} handled`, `${percent(versions[i].agreement)} agree`, `bound ${percent(versions[i].lower_bound)}`]),
    },
    xAxis: axis(undefined, { type: "category", data: versions.map((v) => day(v.created)), axisLabel: { ...text(), hideOverlap: true } }),
    yAxis: axis(undefined, { type: "value", max: 1, scale: true, axisLabel: { ...text(), formatter: (x) => percent(x, 0) } }),
    series: [line("coverage", "coverage", colour("handled"), "solid"), line("agreement", "agreement", colour("deferred"), "solid"),
      line("lower bound", "lower_bound", colour("ink-soft"), "dotted")],
  }));
}
