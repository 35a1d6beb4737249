"use strict";
// The review queue: one row at a time, judged by keyboard or pointer. Every judgement is sent at once.
const $ = (id) => document.getElementById(id);
let items = [];
let at = 0;
let done = 0;
const judged = new Map();

function show() {
  const item = items[at];
  const left = items.length - done;
  $("count").textContent = left ? `${left} ${left === 1 ? "text waits" : "texts wait"} for a judgement` : "Nothing waits for a judgement";
  $("card").hidden = !item;
  if (!item) return;
  $("why").textContent = item.why;
  $("text").textContent = item.text;
  const given = judged.has(item.id) ? ` You said ${judged.get(item.id)}.` : "";
  $("facts").textContent = `${at + 1} of ${items.length}, ${item.at.slice(0, 16).replace("T", " ")} UTC${item.suspicion === null ? "" : `, suspicion ${item.suspicion.toFixed(2)}`}.${given}`;
  $("teacher").textContent = `1 Teacher: ${inWords(item.teacher)}`;
  $("surrogate").textContent = `2 Surrogate: ${inWords(item.surrogate)}`;
  $("surrogate").hidden = item.surrogate === null || item.surrogate === item.teacher;
  $("back").disabled = at === 0;
}

function move(by) {
  at = Math.max(0, Math.min(items.length, at + by));
  show();
  if (items[at]) $("why").focus();
}

function say(words, failed = false) {
  $("said").className = failed ? "failed" : "said";
  $("said").textContent = words;
}

async function send(path, type, body) {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": type }, body });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error.message);
  return told;
}

async function judge(label) {
  const item = items[at];
  if (!item || !label) return;
  try {
    await send("v1/feedback", "application/json", JSON.stringify({ id: item.id, label }));
    if (!judged.has(item.id)) done += 1;
    judged.set(item.id, label);
    say(`${inWords(label)}: kept.`);
    move(1);
  } catch (error) {
    say(error.message, true);
  }
}

async function load() {
  try {
    const answer = await fetch("review.json", { cache: "no-store" });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error.message);
    items = found.items;
    at = done = 0;
    judged.clear();
    $("other").replaceChildren(...found.labels.map((label) => new Option(inWords(label), label)));
    show();
  } catch (error) {
    say(error.message, true);
  }
  document.documentElement.dataset.ready = "true";
}

$("teacher").addEventListener("click", () => judge(items[at].teacher));
$("surrogate").addEventListener("click", () => judge(items[at].surrogate));
$("give").addEventListener("click", () => judge($("other").value));
$("skip").addEventListener("click", () => move(1));
$("back").addEventListener("click", () => move(-1));
$("bring").addEventListener("click", async () => {
  const [file] = $("file").files;
  if (!file) { say("Choose the exported file first.", true); return; }
  try {
    const told = await send("review.jsonl", "application/x-ndjson", await file.text());
    say(`${told.corrected} kept, ${told.refused} refused${told.refusals.length ? `: line ${told.refusals[0].line}, ${told.refusals[0].message}` : ""}.`, told.refused > 0);
    load();
  } catch (error) {
    say(error.message, true);
  }
});
const keys = { 1: "teacher", 2: "surrogate", s: "skip", b: "back" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || ["SELECT", "INPUT"].includes(event.target.tagName)) return;
  if (event.key === "o") { event.preventDefault(); $("other").focus(); }
  const button = keys[event.key] && $(keys[event.key]);
  if (button && !button.hidden && !button.disabled && items[at]) button.click();
});
$("other").addEventListener("keydown", (event) => { if (event.key === "Enter") judge($("other").value); });
load();
