// The coverage-agreement curve and the alpha slider.
function tradeoff() {
  const { curve, whatif, money, certificate } = report;
  const slider = $("alpha");
  let at = whatif.own;

  const points = (values) => curve.coverage.map((x, i) => [x, values[i]]);
  const lowest = () => Math.max(0, Math.floor(20 * (Math.min(whatif.alpha[at], ...curve.agreement) - 0.01)) / 20);
  const drawn = chart("curve", () => ({
    grid: { left: 58, right: 16, top: 36, bottom: 44 },
    legend: { top: 0, textStyle: text(), data: ["agreement", "exact lower bound"] },
    tooltip: {
      ...common().tooltip, trigger: "axis",
      formatter: ([{ dataIndex: i }]) => tip(`${percent(curve.coverage[i])} handled`, [
        `${percent(curve.agreement[i])} agree (${count(curve.agreements[i])} of ${count(curve.n[i])})`,
        `exact lower bound at this point alone: ${percent(curve.lower_bound[i])}`,
      ]),
    },
    xAxis: axis("share of the traffic handled", { type: "value", min: 0, max: 1, axisLabel: { ...text(), formatter: (x) => percent(x, 0) } }),
    yAxis: axis("teacher agreement", { type: "value", min: lowest(), max: 1, nameGap: 44, axisLabel: { ...text(), formatter: (x) => percent(x, 0) } }),
    series: [
      {
        name: "agreement", type: "line", showSymbol: false, data: points(curve.agreement), color: colour("handled"),
        lineStyle: { width: 2.5 },
        markLine: {
          symbol: "none", silent: true, lineStyle: { color: colour("error"), type: "dashed" },
          label: { formatter: `alpha ${whatif.alpha[at]}`, position: "insideStartBottom", color: colour("error") },
          data: [{ yAxis: whatif.alpha[at] }],
        },
        markPoint: whatif.certified[at] ? {
          symbol: "circle", symbolSize: 14, silent: true, label: { show: false },
          itemStyle: { color: colour("handled"), borderColor: colour("card"), borderWidth: 3 },
          data: [{ coord: [whatif.coverage[at], whatif.agreement[at]] }],
        } : undefined,
      },
      {
        name: "exact lower bound", type: "line", showSymbol: false, data: points(curve.lower_bound),
        color: colour("ink-soft"), lineStyle: { width: 1.5, type: "dotted" },
      },
    ],
  }));

  const show = () => {
    const certified = whatif.certified[at];
    $("alpha-now").textContent = String(whatif.alpha[at]);
    $("alpha-coverage").textContent = certified ? percent(whatif.coverage[at]) : "nothing certified";
    $("alpha-saved").textContent = percent(whatif.teacher_calls_saved[at]);
    $("alpha-agreement").textContent = percent(whatif.agreement[at]);
    if (money) {
      const saved = money.all_teacher_per_1000 * whatif.teacher_calls_saved[at];
      $("alpha-money").textContent = `${saved.toPrecision(3)} ${money.currency}`;
    }
    $("alpha-own").hidden = at !== whatif.own;
    slider.setAttribute("aria-valuetext",
      `alpha ${whatif.alpha[at]}: ${certified ? `${percent(whatif.coverage[at])} handled` : "nothing certified"}`);
  };
  slider.addEventListener("input", () => { at = Number(slider.value); show(); drawn.draw(); });
  $("alpha-reset").addEventListener("click", () => { slider.value = at = whatif.own; show(); drawn.draw(); });
  show();
}
