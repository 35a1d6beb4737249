// The map of the traffic: coloured by decision, label or score; hover shows the text; the search lists what it finds.
function map() {
  const { map: m } = report;
  const all = m.x.map((_, i) => i);
  const size = m.x.length > 2500 ? 5 : 7;
  let mode = "decision";
  let query = "";

  const frequent = () => {
    const rows = new Map();
    for (const code of m.teacher) rows.set(code, (rows.get(code) || 0) + 1);
    return [...rows].sort((a, b) => b[1] - a[1]).slice(0, 10).map(([code]) => code);
  };
  const groups = {
    decision: () => [
      ["handled", colour("handled"), (i) => m.handled[i] && m.teacher[i] === m.surrogate[i]],
      ["deferred", colour("deferred"), (i) => !m.handled[i]],
      ["handled, teacher differs", colour("error"), (i) => m.handled[i] && m.teacher[i] !== m.surrogate[i]],
    ],
    label: () => {
      const top = frequent();
      const hues = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99", "#99a", "#aaaa00"];
      return [
        ["other labels", colour("line-strong"), (i) => !top.includes(m.teacher[i])],
        ...top.map((code, j) => [inWords(m.labels[code]), hues[j], (i) => m.teacher[i] === code]),
      ];
    },
    score: () => ["lowest fifth", "second", "middle", "fourth", "highest fifth"].map((name, j) => [
      name, ["#d1495b", "#e08e45", "#c9b458", "#6aa56e", "#2f6690"][j],
      (i) => Math.min(4, Math.floor(5 * m.percentile[i])) === j,
    ]),
  };
  const hit = (i) => !query || m.text[i].toLowerCase().includes(query) || m.labels[m.teacher[i]].toLowerCase().includes(query);
  const about = (i) => tip(m.text[i], [
    `teacher: ${inWords(m.labels[m.teacher[i]])}`, `surrogate: ${inWords(m.labels[m.surrogate[i]])}`,
    `${m.handled[i] ? "handled" : "deferred"}, score above ${Math.round(100 * m.percentile[i])} % of all`,
  ]);
  const drawn = chart("map-chart", () => ({
    grid: { left: 4, right: 4, top: 4, bottom: 64 },
    legend: { bottom: 0, type: "plain", textStyle: text(), icon: "circle" },
    tooltip: { ...common().tooltip, trigger: "item", formatter: ({ data }) => about(data[2]) },
    xAxis: { show: false, min: -1.03, max: 1.03 },
    yAxis: { show: false, min: -1.03, max: 1.03 },
    dataZoom: [{ type: "inside", xAxisIndex: 0, zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false },
      { type: "inside", yAxisIndex: 0, zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false }],
    // points that the search does not find are a series of their own: a style per point would take ten times as long to draw
    series: groups[mode]().flatMap(([name, ink, member]) => [[hit, 0.75], [(i) => !hit(i), 0.06]].map(([wanted, opacity]) => ({
      name, type: "scatter", symbolSize: size, itemStyle: { color: ink, opacity }, large: true, animation: false,
      data: all.filter((i) => member(i) && wanted(i)).map((i) => [m.x[i], m.y[i], i]), tooltip: { formatter: ({ value }) => about(value[2]) },
    }))),
  }));
  const list = () => {
    const found = query ? all.filter(hit) : [];
    $("map-count").textContent = query ? `${count(found.length)} points match` : "";
    $("map-found").replaceChildren(...found.slice(0, 12).map((i) => {
      const item = element("li", m.text[i]);
      item.append(element("small", ` ${inWords(m.labels[m.teacher[i]])}, ${m.handled[i] ? "handled" : "deferred"}`));
      return item;
    }));
  };
  choice($("map-mode"), (value) => { mode = value; drawn.draw(); });
  $("map-search").addEventListener("input", (event) => { query = event.target.value.trim().toLowerCase(); list(); drawn.draw(); });
}
