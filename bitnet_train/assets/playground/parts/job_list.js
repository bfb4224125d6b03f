// Everything that was asked and takes long: how far it is, what it says, and a button that ends it.

import { announce, complain, el, get, keyed, put, soon } from "../lib/dom.js";
import { seconds } from "../lib/format.js";
import { cancel, follow, isOver } from "../lib/jobs.js";
import { hear, known } from "../lib/store.js";
import { progress } from "./progress.js";

const WORDS = { queued: "waits", running: "runs", done: "done", failed: "failed", cancelled: "cancelled" };
const MOST_SHOWN = 30;

/** A measurement that a newer choice made idle is nothing that anyone wants to read of. */
const isIdle = (job) => job.kind === "swap" && job.status === "cancelled";

const all = () => [...known.jobs.values()].filter((job) => !isIdle(job)).sort((a, b) => b.created - a.created);
const modelName = (job) => known.models.find(({ id }) => id === job.model)?.name ?? "";

function make(job) {
  const problem = el("p", { class: "problem", hidden: true });
  const stop = el("button", { type: "button", class: "small", text: "Cancel", "aria-label": `Cancel ${job.title}`, on: { click: () => cancel(job).catch((error) => complain(problem, error)) } });
  const log = el("pre", { tabindex: "0", role: "region", "aria-label": `Log of ${job.title}` });
  const details = el("details", { on: { toggle: () => details.open && (follow(job), draw()) } }, el("summary", { text: "Log" }), log);
  return el(
    "li",
    {},
    el("div", { class: "job-head" }, el("span", { class: "status" }), el("strong", {}), el("span", { class: "quiet" }), stop),
    el("div", { class: "steady" }),
    problem,
    details,
  );
}

function update(node, job) {
  const [head, bar, problem, details] = node.children;
  const [status, title, words, stop] = head.children;
  node.dataset.status = job.status;
  put(status, WORDS[job.status] ?? job.status);
  put(title, job.title);
  put(words, [job.title.includes(modelName(job)) ? "" : modelName(job), job.seconds === null ? "" : seconds(job.seconds)].filter(Boolean).join(" · "));
  stop.hidden = isOver(job);
  bar.hidden = isOver(job);
  progress(bar, isOver(job) ? null : job);
  if (job.error) complain(problem, { message: job.error });
  if (details.open) drawLog(details.lastChild, job);
}

/** A log that is read at its end stays at its end. */
function drawLog(node, job) {
  const atEnd = node.scrollTop + node.clientHeight >= node.scrollHeight - 8;
  put(node, job.log.length ? job.log.join("\n") : "It has said nothing.");
  if (atEnd) node.scrollTop = node.scrollHeight;
}

function drawPill(jobs) {
  const running = jobs.filter((job) => !isOver(job));
  const words = running.length ? `${running.length} running` : jobs.length ? "Jobs" : "No jobs";
  put(get("jobs-pill-text"), words);
  get("jobs-pill").classList.toggle("runs", running.length > 0);
}

const draw = soon(() => {
  const jobs = all();
  get("jobs-empty").hidden = jobs.length > 0;
  keyed(get("job-list"), jobs.slice(0, MOST_SHOWN), ({ id }) => id, make, update);
  drawPill(jobs);
});

const quarter = ({ done, total }) => Math.floor((4 * done) / total);
const told = new Map();

/** Progress is said aloud a few times, not at every step. */
function say(job) {
  const { progress: now } = job;
  if (!now?.total || told.get(job.id) === quarter(now)) return;
  told.set(job.id, quarter(now));
  if (quarter(now) > 0 && quarter(now) < 4) announce(`${job.title}: ${25 * quarter(now)} percent`);
}

function onJob({ job, event }) {
  if (event === "progress") say(job);
  if (event === "status" && isOver(job)) announce(`${job.title}: ${WORDS[job.status]}`);
  if (event !== "piece" && event !== "cost" && event !== "point") draw();
}

export function begin() {
  hear("job", onJob);
  hear("models", draw);
  draw();
}
