// What the choice costs: bytes at once, quality as soon as it is measured, each beside the original.

import { announce, busy, complain, el, get, later, put, soon } from "../lib/dom.js";
import * as choice from "../lib/choice.js";
import { bytes, count, factor, number, percent } from "../lib/format.js";
import { cancel, isOver, start } from "../lib/jobs.js";
import * as kept from "../lib/kept.js";
import { hear, known, model } from "../lib/store.js";
import * as tries from "./tries.js";

const WAIT_MS = 500;

/** The job that measures, what it was asked, and the last measurement of this model. */
let asked = null;
let measured = null;

const key = (chosen, text) => JSON.stringify([chosen, text]);
const ownText = () => get("own-text").value.trim();
const isFresh = () => measured !== null && key(measured.choice, measured.text) === key(choice.asObject(), ownText());

function drawSizes() {
  const layers = model()?.layers ?? [];
  if (!layers.length) return get("sizes").replaceChildren(el("p", { class: "empty", text: "Sizes appear with a model." }));
  if (model().one_bit) return get("sizes").replaceChildren(el("p", { class: "empty", text: `${bytes(model().bytes)}, 1-bit already.` }));
  const { float, kept: whole, small, after, swapped, isMost } = choice.sizes(layers, measured?.before.bytes ?? null);
  const share = (part) => `${((100 * part) / float).toFixed(2)}%`;
  const bar = (title, total, parts, note) =>
    el(
      "div",
      { class: "size" },
      el("span", { class: "size-name", text: title }),
      el("span", { class: "size-bar", "aria-hidden": "true" }, parts.map(([kind, part]) => el("i", { class: kind, vars: { share: share(part) } }))),
      el("span", { class: "size-value" }, el("b", { text: `${isMost ? "up to " : ""}${bytes(total)}` }), note ? el("small", { text: note }) : null),
    );
  return get("sizes").replaceChildren(
    bar("Original", float, [["original", float]], null),
    bar("With your choice", after, [["swapped", small], ["original", whole]], swapped ? factor(float, after) : null),
    el("p", { class: "quiet", text: `${swapped} of ${layers.length} layers swapped` }),
  );
}

function figure(name, before, after, note, hint) {
  return el(
    "div",
    { class: "figure" },
    el("dt", { title: hint, text: name }),
    el("dd", {}, before === null ? null : el("span", { class: "before", text: before }), before === null ? null : el("span", { class: "arrow", text: "→" }), el("b", { text: after }), el("small", { text: note })),
  );
}

function drawFigures() {
  const { before, after } = measured ?? {};
  get("figures").classList.toggle("stale", measured !== null && !isFresh());
  get("figures").replaceChildren(
    figure("Perplexity", number(before?.perplexity), number(after?.perplexity), factor(before?.perplexity, after?.perplexity), "How many tokens the model hesitates between: less is better"),
    figure("KL divergence", null, number(after?.kl), "nats a token", "How far its distribution of the next token is from the original's"),
    figure("Same first choice", null, percent(after?.top1), "of tokens", "How often the likeliest next token is the same"),
  );
}

function state() {
  if (model()?.status !== "ready" || model().one_bit) return "";
  if (asked && !isOver(asked.job)) return asked.job.progress?.label ? `Measuring: ${asked.job.progress.label}` : "Measuring…";
  const where = `${count(measured?.tokens)} tokens of ${measured?.text ? "your text" : "held-out text"}`;
  if (isFresh()) return choice.isEmpty() ? `The original, on ${where}. Paint a layer to see what it costs.` : `Measured on ${where}.`;
  return measured ? "The choice has changed since." : "Not measured yet.";
}

const draw = soon(() => {
  drawSizes();
  drawFigures();
  put(get("cost-state"), state());
  put(get("measure"), asked && !isOver(asked.job) ? "Stop" : "Measure");
});

async function stop() {
  const running = asked;
  asked = null;
  if (running && !isOver(running.job)) await cancel(running.job).catch(() => {});
}

/** Only the newest choice is worth the time: what is still measured for an older one is given up. */
async function measure() {
  await stop();
  const [chosen, text] = [choice.asObject(), ownText()];
  const job = await start("swap", { model: known.model, choice: chosen, ...(text ? { text } : {}) });
  asked = { job, choice: chosen, text };
  remember();
  draw();
  if (isOver(job)) take();
}

/** A reload finds the running job again by what the tab keeps. */
function remember() {
  kept.write("playground.asked", { id: asked.job.id, choice: asked.choice, text: asked.text });
}

function findAgain(job) {
  const before = kept.read("playground.asked");
  if (!asked && before?.id === job.id && job.kind === "swap") asked = { ...before, job };
}

function take() {
  const { job, choice: chosen, text } = asked;
  if (job.status === "failed") complain(get("cost-problem"), new Error(job.error));
  if (job.status !== "done" || !job.result) return;
  complain(get("cost-problem"), null);
  measured = { ...job.result, choice: chosen, text, model: job.model };
  kept.write(`playground.measured.${job.model}`, measured);
  if (Object.keys(chosen).length) tries.keep({ choice: chosen, text, before: measured.before, after: measured.after });
  tries.showFor(text);
  const { before, after } = measured;
  announce(`Perplexity ${number(before.perplexity)} before, ${number(after.perplexity)} after.`);
}

function onJob({ job, event }) {
  if (job) findAgain(job);
  if (!asked || job !== asked.job) return;
  if (isOver(job) && (event === "status" || event === "state")) take();
  draw();
}

const whenQuiet = later(WAIT_MS, () => {
  if (!get("live").checked || model()?.status !== "ready" || model().one_bit || isFresh()) return;
  measure().catch((error) => complain(get("cost-problem"), error));
});

/** A model that has become ready is measured as it is: the reference that every choice is compared with. */
let ready = null;
function whenReady() {
  const now = model()?.status === "ready" ? known.model : null;
  if (now !== ready && now !== null) whenQuiet();
  ready = now;
}

function onModel() {
  measured = kept.read(`playground.measured.${known.model}`);
  complain(get("cost-problem"), null);
  tries.showFor(ownText());
  draw();
  whenReady();
}

export function begin() {
  tries.begin();
  get("live").checked = kept.read("playground.live", true);
  get("live").addEventListener("change", () => {
    kept.write("playground.live", get("live").checked);
    whenQuiet();
  });
  get("own-text").addEventListener("input", () => {
    tries.showFor(ownText());
    draw();
    whenQuiet();
  });
  get("measure").addEventListener("click", () => busy(get("measure"), get("cost-problem"), asked && !isOver(asked.job) ? stop : measure));
  hear("model", onModel);
  hear("models", () => {
    draw();
    whenReady();
  });
  hear("choice", () => {
    draw();
    whenQuiet();
  });
  hear("job", onJob);
}
