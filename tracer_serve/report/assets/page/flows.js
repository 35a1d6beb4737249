// Confusion flows: the teacher's label on the left, the surrogate's on the right.
function flows() {
  let kind = "rows";
  const draw = chart("flows-chart", () => {
    const listed = report.flows.flows.filter((f) => f[kind] > 0).sort((a, b) => b[kind] - a[kind]).slice(0, 18);
    const left = new Set(listed.map((f) => `t:${f.teacher}`));
    const right = new Set(listed.map((f) => `s:${f.surrogate}`));
    const narrow = $("flows-chart").clientWidth < 600;
    const whole = (id) => inWords(id.slice(2));
    const name = (id) => (narrow && whole(id).length > 16 ? `${whole(id).slice(0, 15)}…` : whole(id));
    return {
      tooltip: {
        ...common().tooltip,
        formatter: ({ dataType, data }) => (dataType === "edge"
          ? tip(`${whole(data.source)} → ${whole(data.target)}`, [`${count(data.value)} rows`])
          : tip(whole(data.name), [data.name.startsWith("t:") ? "the teacher says" : "the surrogate says"])),
      },
      series: [{
        type: "sankey", left: 4, right: 4, top: 8, bottom: 8, nodeGap: 9, nodeWidth: 10, draggable: false, layoutIterations: 64,
        data: [...left].map((id) => ({ name: id, itemStyle: { color: colour("handled") }, label: { position: "right" } }))
          .concat([...right].map((id) => ({ name: id, itemStyle: { color: colour("error") }, label: { position: "left" } }))),
        links: listed.map((f) => ({ source: `t:${f.teacher}`, target: `s:${f.surrogate}`, value: f[kind] })),
        lineStyle: { color: "gradient", opacity: 0.2 },
        label: { ...text(), color: colour("ink"), formatter: ({ name: id }) => name(id) },
        emphasis: { focus: "adjacency" },
      }],
    };
  });
  if (draw) choice($("flows-kind"), (value) => { kind = value; draw.draw(); });
}

function causes() {
  const { causes: rows } = report.why;
  if (!rows.length) return;
  $("causes-chart").style.height = `${3 * rows.length + 1.5}rem`;
  chart("causes-chart", () => ({
    grid: { left: 8, right: 48, top: 4, bottom: 8, containLabel: true },
    tooltip: { ...common().tooltip, formatter: ({ dataIndex: i }) => tip(rows[i].words, [`${count(rows[i].rows)} deferred rows, ${percent(rows[i].share)}`]) },
    xAxis: { type: "value", show: false },
    yAxis: axis(undefined, { type: "category", inverse: true, data: rows.map((row) => row.words), axisTick: { show: false }, splitLine: { show: false },
      axisLabel: { ...text(), color: colour("ink"), width: Math.max(110, $("causes-chart").clientWidth * 0.4), overflow: "break" } }),
    series: [{
      type: "bar", barMaxWidth: 20, data: rows.map((row) => row.rows), itemStyle: { color: colour("deferred"), borderRadius: 4 },
      label: { show: true, position: "right", color: colour("ink"), formatter: ({ value }) => count(value) },
    }],
  }));
}
