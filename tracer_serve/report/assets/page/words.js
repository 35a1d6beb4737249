"use strict";
// What every page says alike.
/** A label for people; the answer of a task with fields as names and values. */
function inWords(label) {
  if (!label || !label.startsWith("{")) return label;
  try {
    const said = (value) => value === true ? "yes" : value === false ? "no" : Array.isArray(value) ? value.join(" + ") || "none" : value;
    return Object.entries(JSON.parse(label)).map(([name, value]) => `${name}: ${said(value)}`).join(", ");
  } catch { return label; }
}
