// The choice as a recipe, a recipe as a run, and the curve of that run while it goes.

import { announce, busy, complain, el, get, put, soon } from "../lib/dom.js";
import { ask } from "../lib/api.js";
import * as choice from "../lib/choice.js";
import { count, number } from "../lib/format.js";
import { cancel, follow, isOver, newest, start } from "../lib/jobs.js";
import { hear, known, model, refresh } from "../lib/store.js";
import { responsive } from "../charts/frame.js";
import { lines } from "../charts/lines.js";
import { metricsOf, seriesOf, thin } from "./curves.js";
import { progress } from "./progress.js";
import { folded, table } from "./table.js";

const HEIGHT = 240;
const ROWS = 12;

let address = null;

function options(select, names, first = null) {
  const before = select.value;
  const all = names.map(({ name, summary }) => el("option", { value: name, text: name, title: summary }));
  select.replaceChildren(...(first ? [el("option", { value: "", text: first })] : []), ...all);
  if ([...select.options].some(({ value }) => value === before)) select.value = before;
}

function drawRecipes() {
  options(get("recipe-base"), known.recipes.filter(({ own }) => !own), "quickstart");
  options(get("run-recipe"), known.recipes);
}

function show({ name, yaml }) {
  get("yaml").hidden = false;
  get("yaml").open = true;
  put(get("yaml-text"), yaml);
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(new Blob([yaml], { type: "application/yaml" }));
  Object.assign(get("yaml-download"), { href: address, download: `${name}.yaml` });
}

async function save(event) {
  event.preventDefault();
  await busy(get("recipe-save"), get("recipe-problem"), async () => {
    const base = get("recipe-base").value;
    const asked = { name: get("recipe-name").value.trim(), model: known.model, choice: choice.asObject() };
    const saved = await ask("POST", "recipes", { ...asked, ...(base ? { base } : {}) });
    show(saved);
    await refresh();
    get("run-recipe").value = saved.name;
    announce(`Saved as ${saved.name}.`);
  });
}

async function copy() {
  await navigator.clipboard.writeText(get("yaml-text").textContent);
  put(get("yaml-copy"), "Copied");
  setTimeout(() => put(get("yaml-copy"), "Copy"), 1500);
}

async function run(event) {
  event.preventDefault();
  await busy(get("run-start"), get("run-problem"), async () => {
    const overrides = get("run-overrides").value.split(/\s+/).filter(Boolean);
    await start("run", { recipe: get("run-recipe").value, overrides });
    draw();
  });
}

/** The box of the running job: built once, so that the button in it keeps the focus. */
function build() {
  const chart = el("div", { class: "chart" });
  const stop = el("button", { type: "button", text: "Cancel the run", on: { click: () => busy(stop, get("run-problem"), () => cancel(newest("run"))) } });
  const steady = el("div", { class: "grow steady" });
  get("live-run").replaceChildren(el("h3", {}), el("div", { class: "row" }, steady, stop), chart, el("div", {}));
  const [title, row, , words] = get("live-run").children;
  return { title, row, stop, steady, chart, words, redraw: responsive(chart, drawCurve) };
}

let box = null;

function drawCurve(width) {
  const job = newest("run");
  const [metric] = metricsOf([job?.points ?? []]);
  if (!metric) return el("p", { class: "empty", text: job && !isOver(job) ? "The first step is under way." : "No curve." });
  const series = [{ name: metric, index: 0, points: thin(seriesOf(job.points, metric)) }];
  return lines(width, HEIGHT, { title: `${job.title}: ${metric}`, series, yLabel: metric });
}

function drawTable(words, job) {
  const metrics = metricsOf([job.points]).slice(0, 4);
  if (!metrics.length) return words.replaceChildren();
  const rows = thin(job.points, ROWS).map((point) => [count(point.step), ...metrics.map((metric) => number(point[metric]))]);
  return folded(words, "The curve as a table", table("The curve of the run", ["Step", ...metrics], rows));
}

const ENDS = { done: "Done. It stands among the runs below.", cancelled: "Cancelled; what it had learnt is kept.", failed: "Failed" };

const draw = soon(() => {
  const job = newest("run");
  if (!job) return;
  box ??= build();
  const over = isOver(job);
  put(box.title, job.title);
  progress(box.steady, over ? null : job, ENDS[job.status] ?? "");
  box.stop.hidden = over;
  complain(get("run-problem"), job.status === "failed" ? new Error(job.error ?? "The run failed; its log is among the jobs.") : null);
  box.redraw();
  drawTable(box.words, job);
});

function onJob({ job, event }) {
  if (job?.kind !== "run") return;
  if (newest("run") === job) follow(job);
  draw();
  if (event === "status" && isOver(job)) refresh().catch(() => {});
}

export function begin() {
  get("recipe-form").addEventListener("submit", save);
  get("run-form").addEventListener("submit", run);
  get("yaml-copy").addEventListener("click", () => busy(get("yaml-copy"), get("recipe-problem"), copy));
  hear("recipes", drawRecipes);
  hear("models", () => get("recipe-save").toggleAttribute("disabled", model()?.status !== "ready"));
  hear("job", onJob);
}
