// One prompt, both models, side by side, a token at a time; where they part is marked by a flag and by words.

import { announce, busy, complain, el, get, put, soon } from "../lib/dom.js";
import * as choice from "../lib/choice.js";
import { seconds } from "../lib/format.js";
import { cancel, isOver, newest, start } from "../lib/jobs.js";
import * as kept from "../lib/kept.js";
import { hear, known, model } from "../lib/store.js";
import { follow } from "../lib/jobs.js";
import { differences } from "./parting.js";

const SIDES = ["original", "swapped"];
const FIELDS = ["prompt", "system", "new-tokens", "temperature", "seed"];
const FIRST = { prompt: "import os\nimport sys\n\n", "new-tokens": "64", temperature: "0", seed: "0", system: "" };

let job = null;

function fields() {
  const value = (id) => get(id).value;
  const chat = get("chat").checked;
  return {
    model: known.model,
    choice: choice.asObject(),
    prompt: value("prompt"),
    chat,
    ...(chat && value("system") ? { system: value("system") } : {}),
    max_new_tokens: Number(value("new-tokens")),
    temperature: Number(value("temperature")),
    seed: Number(value("seed")),
  };
}

const pieces = (side) => (job ? job.pieces[side].filter(Boolean) : []);

function piece({ text }, index, { parts, different }) {
  if (index === parts)
    return el("mark", { class: "parts" }, el("span", { class: "unseen", text: " here they part: " }), el("span", { class: "flag", "aria-hidden": "true" }), el("span", { class: "differs", text }));
  return different.has(index) ? el("mark", { class: "differs", text }) : document.createTextNode(text);
}

function drawSide(side, marks) {
  const box = get(`text-${side}`);
  const all = pieces(side);
  box.classList.toggle("waits", Boolean(job) && !isOver(job));
  if (!all.length) return box.replaceChildren(el("span", { class: "empty", text: job ? "…" : "Nothing yet." }));
  return box.replaceChildren(...all.map((each, index) => piece(each, index, marks)));
}

function drawAbout(side) {
  const number = pieces(side).length;
  put(get(`about-${side}`), number ? `${number} tokens` : "");
}

function parted(parts) {
  if (!job) return "";
  const [first] = SIDES.map((side) => pieces(side)[parts]);
  if (parts !== null) return `They part at token ${parts + 1}; what only one of them says is underlined.`;
  if (job.status === "done" && first === undefined) return "They say the same, token for token.";
  return job.status === "cancelled" ? "Stopped." : "";
}

const draw = soon(() => {
  const [left, right] = SIDES.map((side) => pieces(side).map(({ token_id: id }) => id));
  const found = differences(left, right);
  drawSide("original", { parts: found.parts, different: found.left });
  drawSide("swapped", { parts: found.parts, different: found.right });
  SIDES.forEach(drawAbout);
  const took = job?.status === "done" ? ` ${seconds(job.seconds)}.` : "";
  put(get("parting"), parted(found.parts) + (found.parts === null && job?.status !== "done" ? "" : took));
  const runs = job && !isOver(job);
  get("continue-stop").hidden = !runs;
  get("go-on").hidden = Boolean(runs);
});

async function go(event) {
  event.preventDefault();
  await busy(get("go-on"), get("continue-problem"), async () => {
    job = await start("continue", fields());
    draw();
  });
}

/** After a reload the last continuation of this model is read again from its events. */
function adopt() {
  const found = newest("continue", known.model);
  if (found === job) return;
  job = found;
  if (job) follow(job);
  draw();
}

function onJob({ job: changed, event }) {
  if (changed?.kind !== "continue") return;
  adopt();
  if (changed !== job) return;
  if (job.status === "failed") complain(get("continue-problem"), new Error(job.error ?? "It failed."));
  if (event === "status" && job.status === "done") announce("Both have continued.");
  draw();
}

function keepFields() {
  kept.write("playground.prompt", { ...Object.fromEntries(FIELDS.map((id) => [id, get(id).value])), chat: get("chat").checked });
}

function onChat() {
  get("system").disabled = !get("chat").checked;
  keepFields();
}

export function begin() {
  const before = { ...FIRST, ...kept.read("playground.prompt", {}) };
  for (const id of FIELDS) get(id).value = before[id];
  get("chat").checked = Boolean(before.chat);
  get("system").disabled = !before.chat;
  get("continue-form").addEventListener("submit", go);
  get("continue-form").addEventListener("input", keepFields);
  get("chat").addEventListener("change", onChat);
  get("continue-stop").addEventListener("click", () => busy(get("continue-stop"), get("continue-problem"), () => cancel(job)));
  hear("model", () => {
    complain(get("continue-problem"), null);
    adopt();
    draw();
  });
  hear("models", () => get("go-on").toggleAttribute("disabled", model()?.status !== "ready"));
  hear("job", onJob);
  draw();
}
