// The section of the layers: palette, picture, tools, and the measurement of what each layer bears.

import { announce, busy, complain, el, get, put, soon } from "../lib/dom.js";
import * as choice from "../lib/choice.js";
import { bytes, count, number, percent } from "../lib/format.js";
import { cancel, isOver, newest, start } from "../lib/jobs.js";
import * as kept from "../lib/kept.js";
import { hear, known, model, scheme } from "../lib/store.js";
import * as grid from "./grid.js";
import { scale, SHADES, words } from "./heat.js";
import { signOf } from "./marks.js";
import { nameOf, places } from "./places.js";
import { progress } from "./progress.js";
import * as table from "./layer_table.js";

let brush = kept.read("playground.brush", "binary");
let looked = [];

const layers = () => model()?.layers ?? [];

function paint(what) {
  const unable = choice.paint(what, brush);
  const problem = unable ? new Error(`${unable} of ${what.length} stayed as they were: they cannot be ${scheme(brush).label}.`) : null;
  complain(get("layers-problem"), problem);
  const one = what.length === 1 ? nameOf(what[0]) : `${what.length} layers`;
  announce(`${one}: ${scheme(brush).label}`);
}

function pick(id) {
  brush = id;
  kept.write("playground.brush", id);
  const radio = document.querySelector(`#brushes input[value="${CSS.escape(id)}"]`);
  if (radio) radio.checked = true;
}

function drawBrushes() {
  const make = ({ id, label, bits }) =>
    el(
      "label",
      { class: "brush", title: bits ? `${number(bits)} bits a weight` : null },
      el("input", { type: "radio", name: "brush", value: id, on: { change: () => pick(id) } }),
      el("span", { class: id === "float" ? "chip float" : "chip", "aria-hidden": "true", text: signOf(id) }),
      el("span", { text: label }),
    );
  get("brushes").replaceChildren(...known.schemes.map(make));
  pick(known.schemes.some(({ id }) => id === brush) ? brush : "binary");
}

/** What is looked at, in a line whose room is always kept. */
function drawFacts() {
  const weights = looked.reduce((sum, layer) => sum + layer.weights, 0);
  const total = (of) => looked.reduce((sum, layer) => sum + (of(layer) ?? 0), 0);
  const [first] = looked;
  if (!first) return put(get("cell-facts"), "");
  const one = looked.length === 1;
  const name = one ? `${first.name}, ${first.shape.join(" × ")}` : `${looked.length} layers, ${count(weights)} weights`;
  const now = one ? `${scheme(choice.schemeOf(first)).label}, ` : "";
  const float = first.bytes.float === undefined ? "" : `${bytes(total((layer) => layer.bytes.float))} float, `;
  const size = `${float}${bytes(total(choice.bytesOf))} now`;
  return put(get("cell-facts"), `${name}: ${now}${size}${one ? `; ${words(first.cost)}` : ""}`);
}

function drawOutside(outside, heat) {
  const make = (layer) => {
    const chosen = choice.schemeOf(layer);
    const shade = layer.cost && heat ? `heat-${heat.shade(layer.cost.kl)}` : "unknown";
    return el(
      "button",
      {
        type: "button",
        class: "outside-layer",
        on: { click: () => paint([layer]), focus: () => look([layer]), pointerenter: () => look([layer]) },
        "aria-label": `${nameOf(layer)}: ${scheme(chosen).label}, ${words(layer.cost)}`,
      },
      el("span", { class: `cell ${shade}` }, el("span", { class: chosen === "float" ? "" : "chip", text: signOf(chosen) })),
      nameOf(layer),
    );
  };
  const focused = [...get("outside").children].indexOf(document.activeElement);
  get("outside").replaceChildren(...outside.map(make));
  if (focused >= 0) get("outside").children[focused]?.focus();
}

function look(what) {
  looked = what;
  drawFacts();
}

function drawLegend(heat) {
  const shades = Array.from({ length: SHADES }, (_, shade) => el("i", { class: `heat-${shade}` }));
  const ends = heat ? [number(heat.low), number(heat.high)] : ["bears one bit", "costs most"];
  get("legend").replaceChildren(
    el("span", { text: "KL alone at one bit" }),
    el("span", { class: "shades" }, el("span", { text: ends[0] }), ...shades, el("span", { text: ends[1] })),
    el("span", {}, el("i", { class: "unknown" }), "not measured"),
    el("span", {}, el("i", { class: "chip", text: "1" }), "swapped"),
  );
}

function drawBearing() {
  const job = newest("bearing", known.model);
  const runs = job && !isOver(job);
  const measured = layers().filter(({ cost }) => cost).length;
  put(get("bear"), runs ? "Stop measuring" : measured ? "Measure again" : "Measure what each bears");
  const rest = job?.status === "failed" ? job.error : measured ? `${measured} of ${layers().length} layers measured` : "";
  progress(get("bear-progress"), runs ? job : null, rest);
  get("share-range").disabled = !measured;
}

function drawState() {
  const now = model();
  const shown = now?.status === "ready" && layers().length > 0;
  get("layers-body").hidden = !shown;
  get("layers-gone").hidden = now?.status !== "failed";
  get("layers-empty").hidden = shown || now?.status === "failed";
  const isFixed = Boolean(now?.one_bit);
  get("layers-fixed").hidden = !isFixed;
  get("layers-tools").disabled = isFixed;
  if (now?.status === "failed") put(get("layers-gone-text"), `${now.name}: ${now.error ?? "its process has ended."}`);
  put(get("layers-empty-text"), now?.status === "loading" ? `Loading ${now.name}…` : "The layers appear here once a model is ready.");
  return shown;
}

const draw = soon(() => {
  if (!drawState()) return;
  const where = places(layers());
  const heat = scale(layers());
  grid.draw(where, heat);
  drawOutside(where.outside, heat);
  drawLegend(heat);
  drawBearing();
  drawFacts();
  for (const [id, can] of [["undo", choice.canUndo()], ["redo", choice.canRedo()], ["clear", !choice.isEmpty()]])
    get(id).setAttribute("aria-disabled", String(!can));
  table.draw(layers());
});

/** A cost that comes while the measurement runs is shown at once; the state that is asked for later agrees. */
function onJob({ job, event, data }) {
  if (job?.kind !== "bearing") return;
  if (event === "cost" && job.model === known.model) {
    const layer = layers().find(({ name }) => name === data.layer);
    if (layer) layer.cost = { share: null, ...layer.cost, kl: data.kl };
  }
  draw();
}

function onShare() {
  const share = Number(get("share-range").value) / 100;
  put(get("share-out"), percent(share));
  const taken = choice.best(layers(), share);
  const scheme = brush === "float" ? "binary" : brush;
  const able = taken.filter((layer) => choice.allows(layer, scheme));
  choice.replace(new Map(able.map(({ name }) => [name, scheme])), "share");
}

function onShortcut(event) {
  if (event.target.closest("input:not([type=radio]):not([type=range]), textarea, select") || event.altKey) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key.toLowerCase() === "z") {
    event.preventDefault();
    (event.shiftKey ? choice.redo : choice.undo)();
  } else if (!command && event.target.closest("#layers") && known.schemes[Number(event.key) - 1]) {
    pick(known.schemes[Number(event.key) - 1].id);
    announce(`Paint with ${scheme(brush).label}`);
  }
}

function bear() {
  const job = newest("bearing", known.model);
  const work = job && !isOver(job) ? () => cancel(job) : () => start("bearing", { model: known.model });
  return busy(get("bear"), get("layers-problem"), work);
}

export function begin() {
  grid.begin({ paint, show: look });
  table.begin();
  get("undo").addEventListener("click", choice.undo);
  get("redo").addEventListener("click", choice.redo);
  get("clear").addEventListener("click", () => choice.replace({}));
  get("bear").addEventListener("click", bear);
  get("share-range").addEventListener("input", onShare);
  get("share").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("keydown", onShortcut);
  for (const topic of ["models", "model", "choice"]) hear(topic, draw);
  hear("model", () => look([]));
  hear("schemes", drawBrushes);
  hear("job", onJob);
  new ResizeObserver(draw).observe(get("layers"));
}
