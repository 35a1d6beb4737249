"use strict";
// What every section needs: the data, colours of the scheme in force, charts that follow it, elements made of text only.
const report = JSON.parse(document.getElementById("report").textContent);
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const dark = matchMedia("(prefers-color-scheme: dark)");
const paper = matchMedia("print"); // always light: report.css
const charts = [];

const $ = (id) => document.getElementById(id);
/** A share: less than all is never rounded to all. */
const percent = (x, digits = 1) => (x === null ? "-" : `${(x < 1 && digits ? Math.min(100 * x, 99.9) : 100 * x).toFixed(digits)} %`);
/** A lower bound: rounded down, so that it stays one. */
const atLeast = (x) => (x === null ? "-" : `${(Math.floor(1000 * x + 1e-6) / 10).toFixed(1)} %`);
const count = (x) => x.toLocaleString("en");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** A tooltip as elements: texts of strangers never pass an HTML parser. */
function tip(title, lines) {
  const box = element("div", undefined, "tip");
  box.append(element("strong", title));
  for (const line of lines) box.append(element("span", line));
  return box;
}

const font = getComputedStyle(document.body).fontFamily;
const text = () => ({ color: colour("ink-soft"), fontFamily: font, fontSize: 12, lineHeight: 15 });
const axis = (name, more = {}) => ({
  name, nameLocation: "middle", nameGap: 30, nameTextStyle: text(), axisLabel: text(),
  axisLine: { lineStyle: { color: colour("line") } }, splitLine: { lineStyle: { color: colour("line") } }, ...more,
});
const common = () => ({
  animation: !calm && !paper.matches, animationDuration: 400, textStyle: { fontFamily: font },
  tooltip: {
    confine: true, backgroundColor: colour("card"), borderColor: colour("line"), textStyle: { color: colour("ink") },
    extraCssText: "max-width:22rem;white-space:normal;",
  },
});

/** Draw a chart into an element; `option` is asked again whenever scheme, width or data change. */
function chart(id, option, ready) {
  const place = $(id);
  if (!place) return null;
  const made = echarts.init(place);
  const draw = () => made.setOption({ ...common(), ...option() }, true);
  charts.push({ made, draw });
  draw();
  new ResizeObserver(() => made.resize()).observe(place);
  if (ready) ready(made);
  return { made, draw };
}

for (const medium of [dark, paper]) medium.addEventListener("change", () => charts.forEach(({ made, draw }) => { made.resize(); draw(); }));

// Paper cannot be clicked: what is folded away is printed open, and folded again after it.
const opened = [];
addEventListener("beforeprint", () => {
  opened.push(...document.querySelectorAll("details:not([open])"));
  for (const folded of opened) folded.open = true;
});
addEventListener("afterprint", () => { for (const folded of opened.splice(0)) folded.open = false; });

/** Buttons of which one is pressed; calls back with its value. */
function choice(group, changed) {
  const buttons = [...group.querySelectorAll("button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      changed(button.value);
    });
  }
}

function download(name, content) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/x-ndjson" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
