// What the page knows: the server's state, the chosen model, and who wants to hear of a change.

import { ask } from "./api.js";
import * as kept from "./kept.js";

const bus = new EventTarget();

export const known = {
  version: "",
  machine: null,
  schemes: [],
  models: [],
  jobs: new Map(),
  runs: [],
  recipes: [],
  limits: {},
  llama_cpp: false,
  model: kept.read("playground.model"),
};

export const hear = (topic, listener) => bus.addEventListener(topic, (event) => listener(event.detail));
export const tell = (topic, detail) => bus.dispatchEvent(new CustomEvent(topic, { detail }));

export const model = () => known.models.find(({ id }) => id === known.model) ?? null;
export const scheme = (id) => known.schemes.find((each) => each.id === id) ?? { id, label: id, bits: null };

export function choose(id) {
  if (known.model === id) return;
  known.model = id;
  kept.write("playground.model", id);
  tell("model", model());
}

/** A model that is gone gives way to the first that can be used. */
function settle() {
  if (model() === null) choose((known.models.find(({ status }) => status === "ready") ?? known.models[0])?.id ?? null);
}

/** Take one model into the list, new or changed. */
export function take(changed) {
  const place = known.models.findIndex(({ id }) => id === changed.id);
  if (place < 0) known.models.push(changed);
  else known.models[place] = changed;
  settle();
  tell("models", known.models);
}

const SAME = { version: 1, machine: 1, schemes: 1, models: 1, runs: 1, recipes: 1, limits: 1, llama_cpp: 1 };
let last = {};

/** Read the whole state; topics are told only where their part changed. */
export async function refresh() {
  const state = await ask("GET", "state");
  const before = last;
  last = Object.fromEntries(Object.keys(SAME).map((key) => [key, JSON.stringify(state[key])]));
  const changed = Object.keys(SAME).filter((key) => before[key] !== last[key]);
  for (const key of changed) known[key] = state[key];
  if (changed.includes("models")) settle();
  for (const key of changed) tell(key, known[key]);
  tell("state jobs", state.jobs);
}

/** Ask again from time to time: often while something is under way, not at all while nobody looks or `isShut`. */
export function keepFresh(onError, isShut) {
  const busy = () =>
    known.models.some(({ status }) => status === "loading") ||
    [...known.jobs.values()].some(({ status }) => status === "running" || status === "queued");
  const again = () => setTimeout(turn, busy() ? 1000 : 4000);
  const turn = async () => {
    if (!document.hidden && !isShut()) await refresh().then(() => onError(null), onError);
    again();
  };
  document.addEventListener("visibilitychange", () => document.hidden || refresh().catch(onError));
  again();
}
