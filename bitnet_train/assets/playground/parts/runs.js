// Past runs beside one another: curves overlaid, what their configurations differ in, and what came of them.

import { el, get, keyed, put, soon } from "../lib/dom.js";
import { ask } from "../lib/api.js";
import { anything } from "../lib/format.js";
import * as kept from "../lib/kept.js";
import { hear, known } from "../lib/store.js";
import { responsive } from "../charts/frame.js";
import { lines, MOST_SERIES, swatch } from "../charts/lines.js";
import { results as resultsOf } from "./results.js";
import { metricsOf, seriesOf, thin } from "./curves.js";
import { folded, table } from "./table.js";

const HEIGHT = 300;
const FRESH_MS = 3000;

/** Runs that are compared, by id, each with the place of its colour; and what was read of each. */
const places = new Map(kept.read("playground.runs", []));
const whole = new Map();
let redraw = () => {};

const chosen = () => [...places].filter(([id]) => whole.has(id)).map(([id, index]) => ({ ...whole.get(id), index }));

async function read(run) {
  const before = whole.get(run.id);
  if (before && (before.status === run.status && run.status !== "running")) return;
  if (before && Date.now() - before.at < FRESH_MS) return;
  whole.set(run.id, { ...(await ask("GET", `runs/${encodeURIComponent(run.id)}`)), at: Date.now() });
}

function choose(run, isOn) {
  if (isOn) {
    const taken = new Set(places.values());
    places.set(run.id, [0, 1, 2, 3, 4, 5].find((index) => !taken.has(index)));
  } else places.delete(run.id);
  kept.write("playground.runs", [...places]);
  load();
}

function make(run) {
  const box = el("input", { type: "checkbox", on: { change: () => choose(run, box.checked) } });
  return el("label", { class: "run" }, box, el("span", { class: "run-swatch" }), el("span", { class: "run-name" }), el("small", {}));
}

function update(node, run) {
  const [box, mark, name, words] = node.children;
  const index = places.get(run.id);
  box.checked = index !== undefined;
  box.disabled = index === undefined && places.size >= MOST_SERIES;
  mark.replaceChildren(...(index === undefined ? [] : [swatch(index)]));
  put(name, run.name ?? run.id);
  put(words, [run.recipe, run.status].filter(Boolean).join(" · "));
}

function drawMetrics(runs) {
  const metrics = metricsOf(runs.map(({ curve }) => curve ?? []));
  const select = get("metric");
  const before = select.value;
  if ([...select.options].map(({ value }) => value).join() !== metrics.join())
    select.replaceChildren(...metrics.map((name) => el("option", { value: name, text: name })));
  if (metrics.includes(before)) select.value = before;
}

function drawChart(width) {
  const metric = get("metric").value;
  const all = chosen().map(({ id, name, index, curve }) => ({ name: name ?? id, index, points: thin(seriesOf(curve ?? [], metric)) }));
  const series = all.filter(({ points }) => points.length);
  if (!series.length) return el("p", { class: "empty", text: places.size ? "These runs have no curve yet." : "Tick a run to see its curve." });
  return lines(width, HEIGHT, { title: `${metric} of ${series.map(({ name }) => name).join(", ")}`, series, yLabel: metric });
}

/** Rows of what is not the same in all; every row where there is but one run. */
function compared(runs, of) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(of(run) ?? {})))].sort();
  const rows = names.map((name) => [name, ...runs.map((run) => anything(of(run)?.[name]))]);
  return runs.length < 2 ? rows : rows.filter(([, first, ...rest]) => rest.some((value) => value !== first));
}

const nothing = () => el("span", { class: "unseen", text: "Figure" });

function drawTables(runs) {
  const box = get("runs-differences");
  if (!runs.length) return box.replaceChildren();
  if (!box.childElementCount) box.replaceChildren(el("h3", { text: "Results" }), el("div", {}), el("div", {}));
  const heads = () => [nothing(), ...runs.map(({ id, name, index }) => el("span", { class: "run-head" }, swatch(index), name ?? id))];
  const [, results, settings] = box.children;
  const facts = resultsOf(runs);
  results.replaceChildren(facts.length ? table("Results", heads(), facts) : el("p", { class: "empty", text: "No results yet." }));
  const differ = compared(runs, ({ config }) => config);
  const title = runs.length < 2 ? `Its ${differ.length} settings` : differ.length === 1 ? "The one setting that differs" : `${differ.length} settings that differ`;
  return folded(settings, title, differ.length ? table(title, heads(), differ) : el("p", { class: "empty", text: "Their settings are the same." }));
}

const draw = soon(() => {
  get("runs-empty").hidden = known.runs.length > 0;
  get("runs-body").hidden = !known.runs.length;
  keyed(get("run-list"), known.runs, ({ id }) => id, make, update);
  const runs = chosen();
  drawMetrics(runs);
  redraw();
  drawTables(runs);
});

async function load() {
  const listed = known.runs.filter(({ id }) => places.has(id));
  await Promise.allSettled(listed.map(read));
  draw();
}

/** The first time that there are runs, the newest is shown: an empty chart says nothing. */
function onRuns() {
  for (const id of [...places.keys()]) if (!known.runs.some((run) => run.id === id)) places.delete(id);
  if (!places.size && known.runs.length && kept.read("playground.runs") === null) places.set(known.runs[0].id, 0);
  load();
}

export function begin() {
  redraw = responsive(get("runs-chart"), drawChart);
  get("metric").addEventListener("change", draw);
  hear("runs", onRuns);
  hear("job", ({ job, event }) => job?.kind === "run" && event === "point" && load());
  draw();
}
