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

/** Draw a chart into an element, at once; `option` is asked again whenever scheme, width or data change. */
function chart(id, option) {
  const place = $(id);
  if (!place) return null;
  const made = echarts.init(place);
  const draw = () => made.setOption({ ...common(), ...option() }, true);
  charts.push({ made, draw, place });
  draw();
  new ResizeObserver(() => { if (place.clientWidth) made.resize(); }).observe(place); // none while it is folded away
  return { made, draw };
}

const redraw = () => charts.forEach(({ made, draw, place }) => { if (place.clientWidth) { made.resize(); draw(); } });
for (const medium of [dark, paper]) medium.addEventListener("change", redraw);

// Paper cannot be clicked: what is folded away is printed open, and folded again after it.
const opened = [];
addEventListener("beforeprint", () => {
  opened.push(...document.querySelectorAll("details:not([open])"));
  for (const folded of opened) folded.open = true;
  redraw();
});
addEventListener("afterprint", () => { for (const folded of opened.splice(0)) folded.open = false; });

/** Explain terms: at hover, focus and tap. Escape hides, and the pointer may move onto the explanation. */
function explained() {
  const bubble = element("div", undefined, "bubble");
  bubble.setAttribute("aria-hidden", "true"); // its words are already the term's description
  bubble.hidden = true;
  document.body.append(bubble);
  const show = ({ target }) => {
    const term = target.closest ? target.closest(".term") : null;
    if (!term) { if (target !== bubble) bubble.hidden = true; return; }
    const at = term.getBoundingClientRect();
    bubble.textContent = $(term.getAttribute("aria-describedby")).textContent;
    bubble.hidden = false;
    bubble.style.top = `${at.bottom + scrollY + 2}px`;
    bubble.style.left = `${Math.max(8, Math.min(at.left, document.documentElement.clientWidth - bubble.offsetWidth - 8)) + scrollX}px`;
  };
  for (const event of ["pointerover", "focusin", "click"]) document.addEventListener(event, show);
  document.addEventListener("focusout", () => { bubble.hidden = true; });
  document.addEventListener("keydown", ({ key }) => { if (key === "Escape") bubble.hidden = true; });
}
explained();

/** Name the cells of a table by its head, for narrow screens, where each row becomes a card. */
function named(table) {
  const heads = table.tHead ? [...table.tHead.rows[0].cells].map((cell) => cell.textContent) : [];
  if (heads.length < 3) return;
  table.classList.add("cardlike");
  for (const line of table.tBodies[0].rows) for (const cell of line.cells) if (cell.tagName === "TD") cell.dataset.label = heads[cell.cellIndex];
}

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
