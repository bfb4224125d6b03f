// How fast and how heavy: one row a way to decode, its bars in the cells of a table that reads without them.

import { busy, complain, el, get, soon } from "../lib/dom.js";
import * as choice from "../lib/choice.js";
import { bytes, number } from "../lib/format.js";
import { cancel, isOver, newest, start } from "../lib/jobs.js";
import { hear, known, model } from "../lib/store.js";
import { progress } from "./progress.js";

const BARS = [
  ["tokens_per_second", "Tokens/s", number],
  ["ms_per_token", "ms/token", number],
  ["memory_bytes", "Memory", bytes],
];

const job = () => newest("benchmark", known.model);

/** The rows of the newest measurement that has any: they come one by one while it runs. */
function rowsNow() {
  const all = [...known.jobs.values()].filter((each) => each.kind === "benchmark" && each.model === known.model);
  const rows = all.sort((a, b) => b.created - a.created).map(({ result, rows: told }) => result?.rows ?? told);
  return rows.find(({ length }) => length > 0) ?? [];
}

function bar(rows, row, [field, title, words]) {
  const most = Math.max(...rows.map((each) => each[field] ?? 0), 1e-12);
  const share = `${(100 * (row[field] ?? 0)) / most}%`;
  return el("td", { "data-label": title }, el("span", { class: "bar-value", text: words(row[field]) }), el("i", { class: "bar", "aria-hidden": "true", vars: { share } }));
}

function notes(rows) {
  const missing = rows.length < 2 ? "Swap layers to see them in the native runtime. " : "";
  return missing + (known.llama_cpp ? "" : "Where llama.cpp is found, it stands here too.");
}

const kind = (place) => (place === 0 ? "original" : "swapped");

function drawRows(rows) {
  if (!rows.length) return get("bench-rows").replaceChildren(el("p", { class: "empty", text: "Not measured yet. It takes the machine for itself for a moment." }));
  const row = (each, place) =>
    el(
      "tr",
      { class: each.what?.toLowerCase().includes("llama.cpp") ? "other" : kind(place) },
      el("th", { scope: "row", text: each.what }),
      ...BARS.map((column) => bar(rows, each, column)),
      el("td", { "data-label": "Instructions", text: each.isa ?? "–" }),
      el("td", { "data-label": "Threads", text: String(each.threads ?? "–") }),
    );
  const heads = ["", ...BARS.map(([, title]) => title), "Instructions", "Threads"];
  return get("bench-rows").replaceChildren(
    el(
      "table",
      { class: "bars" },
      el("caption", { class: "unseen", text: "Speed and memory of each way to decode" }),
      el("thead", {}, el("tr", {}, heads.map((text) => (text ? el("th", { scope: "col", text }) : el("td", {}))))),
      el("tbody", {}, rows.map(row)),
    ),
    el("p", { class: "quiet", text: notes(rows) }),
  );
}

const draw = soon(() => {
  const now = job();
  const runs = now && !isOver(now);
  get("bench").textContent = runs ? "Stop" : "Measure the speed";
  get("bench").toggleAttribute("disabled", model()?.status !== "ready");
  progress(get("bench-progress"), runs ? now : null);
  complain(get("bench-problem"), now?.status === "failed" ? new Error(now.error) : null);
  drawRows(rowsNow());
});

function measure() {
  const now = job();
  const runs = now && !isOver(now);
  return busy(get("bench"), get("bench-problem"), runs ? () => cancel(now) : () => start("benchmark", { model: known.model, choice: choice.asObject() }));
}

export function begin() {
  get("bench").addEventListener("click", measure);
  for (const topic of ["model", "models", "llama_cpp"]) hear(topic, draw);
  hear("job", ({ job: changed }) => (!changed || changed.kind === "benchmark") && draw());
  draw();
}
