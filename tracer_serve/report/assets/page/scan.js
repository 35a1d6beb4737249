// The page of a scan: coverage over alpha, and coverage over traces at each alpha.
const shades = ["handled", "good", "deferred", "error", "ink-soft", "ink"];

chart("alpha-chart", () => ({
  grid: { left: 58, right: 24, top: 16, bottom: 44 },
  tooltip: {
    ...common().tooltip, trigger: "axis",
    formatter: ([{ dataIndex: i }]) => {
      const point = report.points[i];
      return tip(`alpha ${point.alpha}`, [`${percent(point.coverage)} handled`, `${percent(point.agreement)} agree`, point.surrogate]);
    },
  },
  xAxis: axis("alpha: required agreement with the teacher", { type: "category", data: report.points.map((p) => String(p.alpha)) }),
  yAxis: axis("certified coverage", { type: "value", min: 0, max: 1, nameGap: 44, axisLabel: { ...text(), formatter: (x) => percent(x, 0) } }),
  series: [{ type: "line", data: report.points.map((p) => p.coverage), color: colour("handled"), symbolSize: 10, lineStyle: { width: 2.5 } }],
}));

chart("curve-chart", () => ({
  grid: { left: 58, right: 24, top: 40, bottom: 44 },
  legend: { top: 0, textStyle: text(), itemGap: 14 },
  tooltip: {
    ...common().tooltip, trigger: "item",
    formatter: ({ value, seriesName }) => tip(`alpha ${seriesName}`, [`${count(value[0])} traces: ${percent(value[1])} certified`]),
  },
  xAxis: axis("traces", { type: "log", axisLabel: { ...text(), formatter: count, hideOverlap: true, customValues: report.points[0].curve.map(([n]) => n) },
    min: "dataMin", max: "dataMax", splitLine: { show: false } }),
  yAxis: axis("certified coverage", { type: "value", min: 0, max: 1, nameGap: 44, axisLabel: { ...text(), formatter: (x) => percent(x, 0) } }),
  series: report.points.map((p, i) => ({
    name: String(p.alpha), type: "line", data: p.curve, color: colour(shades[i % shades.length]), symbolSize: 8, lineStyle: { width: 2.5 },
  })),
}));

document.querySelectorAll("table").forEach(named);
