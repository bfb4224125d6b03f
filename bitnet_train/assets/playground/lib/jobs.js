// Jobs of the server, followed by their events: started here, found again after a reload, or started in another tab.

import { ask } from "./api.js";
import { follow as followEvents } from "./events.js";
import { hear, known, tell } from "./store.js";

const FINAL = new Set(["done", "failed", "cancelled"]);
const MOST_LOG_LINES = 2000;

export const isOver = ({ status }) => FINAL.has(status);

const blank = () => ({ log: [], points: [], rows: [], pieces: { original: [], swapped: [] }, followed: false });

/** Take what the server says of a job into what is known of it. */
function learn(job) {
  const before = known.jobs.get(job.id);
  const now = before ?? { ...blank() };
  const changed = !before || before.status !== job.status || before.progress?.done !== job.progress?.done;
  if (!before || !isOver(before) || isOver(job)) Object.assign(now, job);
  known.jobs.set(job.id, now);
  if (changed) tell("job", { job: now, event: "state" });
  return now;
}

const APPLY = {
  progress: (job, data) => (job.progress = data),
  log: (job, { text }) => {
    job.log.push(text);
    if (job.log.length > MOST_LOG_LINES) job.log.splice(0, job.log.length - MOST_LOG_LINES);
  },
  piece: (job, piece) => (job.pieces[piece.side][piece.index] = piece),
  row: (job, row) => job.rows.push(row),
  point: (job, point) => job.points.push(point),
  status: (job, { status }) => (job.status = status),
  result: (job, result) => (job.result = result),
  error: (job, { message }) => (job.error = message),
};

function apply(job, event, data) {
  APPLY[event]?.(job, data);
  tell("job", { job, event, data });
  return !(event === "status" && FINAL.has(data.status));
}

/** Hear a job's events from its first, once. */
export function follow(job) {
  if (job.followed) return;
  job.followed = true;
  followEvents(`jobs/${job.id}/events`, (event, data) => apply(job, event, data)).catch((error) => {
    job.followed = false;
    if (isOver(job)) return;
    Object.assign(job, { status: "failed", error: error.message });
    tell("job", { job, event: "status", data: { status: "failed" } });
  });
}

export async function start(kind, fields) {
  const job = learn(await ask("POST", "jobs", { kind, ...fields }));
  follow(job);
  return job;
}

export async function cancel(job) {
  learn(await ask("POST", `jobs/${job.id}/cancel`));
}

/** The newest job of a kind, for one model or for any. */
export function newest(kind, modelId) {
  const found = [...known.jobs.values()].filter((job) => job.kind === kind && (!modelId || job.model === modelId));
  return found.sort((a, b) => b.created - a.created)[0] ?? null;
}

/** What the server lists is what there is; what runs there is followed here, and the last continuation is read again. */
function found(listed) {
  const ids = new Set(listed.map(({ id }) => id));
  const gone = [...known.jobs.keys()].filter((id) => !ids.has(id));
  gone.forEach((id) => known.jobs.delete(id));
  const jobs = listed.map(learn);
  jobs.filter((job) => !isOver(job)).forEach(follow);
  if (gone.length) tell("job", { job: null, event: "gone" });
}

hear("state jobs", found);
