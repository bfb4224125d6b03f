// The choices that were measured, kept in the tab: a chart of size against perplexity, and a table to go back by.

import { el, get } from "../lib/dom.js";
import * as choice from "../lib/choice.js";
import { bytes, number, percent } from "../lib/format.js";
import * as kept from "../lib/kept.js";
import { hear, known } from "../lib/store.js";
import { dots } from "../charts/dots.js";
import { responsive } from "../charts/frame.js";
import { folded, table } from "./table.js";

const MOST_TRIES = 40;
const HEIGHT = 220;

const place = () => `playground.tries.${known.model}`;
const all = () => kept.read(place(), []);

/** Keep a measurement: {choice, text, before, after, sizes}; the same choice on the same text replaces the older one. */
export function keep(made) {
  const same = JSON.stringify([made.choice, made.text]);
  const others = all().filter((old) => JSON.stringify([old.choice, old.text]) !== same);
  kept.write(place(), [...others, made].slice(-MOST_TRIES));
  draw();
}

const measuredOn = (text) => all().filter((made) => made.text === text);

const name = ({ choice: chosen }) => {
  const schemes = Object.values(chosen);
  const kinds = [...new Set(schemes)].map((id) => known.schemes.find((each) => each.id === id)?.label ?? id);
  return `${schemes.length} ${schemes.length === 1 ? "layer" : "layers"}: ${kinds.join(", ")}`;
};

function series(tries) {
  const [{ before }] = tries;
  const now = JSON.stringify(choice.asObject());
  const kind = (made) => (JSON.stringify(made.choice) === now ? "now" : "tried");
  return [
    { name: "Original", bytes: before.bytes, perplexity: before.perplexity, kind: "original" },
    ...tries.map((made) => ({ name: name(made), bytes: made.after.bytes, perplexity: made.after.perplexity, kind: kind(made) })),
  ];
}

function rows(tries) {
  const back = (made) => el("button", { type: "button", class: "small", text: "Take", "aria-label": `Take ${name(made)}`, on: { click: () => choice.replace(made.choice) } });
  return [...tries]
    .reverse()
    .map((made) => [name(made), bytes(made.after.bytes), number(made.after.perplexity), number(made.after.kl), percent(made.after.top1), back(made)]);
}

let text = "";
let redraw = () => {};

function draw() {
  const tries = measuredOn(text);
  redraw();
  if (!tries.length) return get("tries-table").replaceChildren();
  const made = table("Choices tried", ["Choice", "Size", "Perplexity", "KL", "Top-1", ""], rows(tries));
  return folded(get("tries-table"), tries.length === 1 ? "The one choice as a table" : `${tries.length} choices as a table`, made);
}

/** Perplexities on different texts do not compare: only those of one text are shown. */
export function showFor(measuredText) {
  text = measuredText;
  draw();
}

export function begin() {
  redraw = responsive(get("tries-chart"), (width) => {
    const tries = measuredOn(text);
    if (!tries.length) return el("p", { class: "empty", text: "Every choice that is measured becomes a dot: size across, perplexity up." });
    return dots(width, HEIGHT, { title: "Choices tried: size against perplexity", dots: series(tries) });
  });
  for (const topic of ["model", "choice", "schemes"]) hear(topic, draw);
}
