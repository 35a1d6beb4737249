// Tables that sort and filter, lists that unfold, the export of the disagreement cards.
function sortable(table) {
  const body = table.tBodies[0];
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = head.querySelector(".sort");
    if (!button) continue;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
      };
      const order = (a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));
      body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * order(value(a), value(b))));
    });
  }
}

function filtered(input) {
  const parts = [...$(input.dataset.filters).querySelectorAll("[data-row]")];
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    $(input.dataset.filters).classList.toggle("filtering", wanted !== ""); // also among what is folded away
    for (const part of parts) part.hidden = !part.textContent.toLowerCase().includes(wanted);
  });
}

function unfolding(list) {
  const rest = [...list.children].slice(Number(list.dataset.unfold));
  if (!rest.length) return;
  for (const item of rest) item.classList.add("folded");
  const button = element("button", `Show ${rest.length} more`, "more");
  button.type = "button";
  button.addEventListener("click", () => {
    for (const item of rest) item.classList.remove("folded");
    button.remove();
    rest[0].tabIndex = -1;
    rest[0].focus();
  });
  list.after(button);
}

function exports() {
  const button = $("cards-export");
  if (!button) return;
  button.addEventListener("click", () => download(`${report.task}-review.jsonl`,
    report.cards.cards.map((card) => `${JSON.stringify({ input: card.input, teacher: card.teacher, suggested: card.surrogate,
      suspicion: card.suspicion, score: card.score })}\n`).join("")));
}

document.querySelectorAll("table[data-sortable]").forEach(sortable);
document.querySelectorAll("input[data-filters]").forEach(filtered);
document.querySelectorAll("[data-unfold]").forEach(unfolding);
exports();
document.querySelectorAll("table").forEach(named);
// Every fold is open in the page as it comes, so that charts have a width; then all but those that are asked for close.
for (const draw of [tradeoff, slices, causes, map, plateau, flows, history]) draw();
const folds = [...document.querySelectorAll("details.group")];
const asked = () => folds.find((fold) => location.hash && (fold.id === location.hash.slice(1) || fold.querySelector(`[id="${CSS.escape(location.hash.slice(1))}"]`)));
const open = (which) => { for (const fold of folds) fold.open = which(fold); };
open((fold) => location.hash === "#all" || fold === asked());
addEventListener("hashchange", () => { const fold = asked(); if (fold) { fold.open = true; $(location.hash.slice(1)).scrollIntoView(); } });
$("open-all").addEventListener("click", () => open(() => true));
document.documentElement.dataset.ready = "true";
