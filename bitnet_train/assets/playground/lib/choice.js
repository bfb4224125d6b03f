// Which layer has which scheme. What is not named is float. Kept for each model in the tab, with undo.

import * as kept from "./kept.js";
import { hear, known, model, tell } from "./store.js";

const MOST_STEPS = 200;
const steps = new Map();

const place = (id) => `playground.choice.${id}`;
const fresh = (id) => ({ now: new Map(Object.entries(kept.read(place(id), {}))), past: [], future: [] });

function here() {
  const id = known.model ?? "";
  if (!steps.has(id)) steps.set(id, fresh(id));
  return steps.get(id);
}

function settle(step, now) {
  step.now = now;
  kept.write(place(known.model ?? ""), Object.fromEntries(now));
  tell("choice", now);
}

export const schemeOf = (layer) => here().now.get(layer.name) ?? "float";
export const asObject = () => Object.fromEntries(here().now);
export const isEmpty = () => here().now.size === 0;
export const canUndo = () => here().past.length > 0;
export const canRedo = () => here().future.length > 0;

/** A layer can have the schemes whose bytes the server could name: 64 inputs a group must divide its width. */
export const allows = (layer, scheme) =>
  scheme === "float" || (layer.swappable !== false && Number.isFinite(layer.bytes?.[scheme]));

const equal = (a, b) => a.size === b.size && [...a].every(([name, scheme]) => b.get(name) === scheme);

/**
 * Go from the present choice to another, as one step that can be undone; steps of one `gesture`, such as a slider that
 * is drawn along, are one step together. Returns whether anything changed.
 */
export function replace(next, gesture = null) {
  const step = here();
  const map = next instanceof Map ? next : new Map(Object.entries(next));
  if (equal(step.now, map)) return false;
  if (gesture === null || step.gesture !== gesture) step.past.push(step.now);
  step.past.splice(0, Math.max(0, step.past.length - MOST_STEPS));
  step.future = [];
  step.gesture = gesture;
  settle(step, map);
  return true;
}

/** Give these layers a scheme, as one step. Returns how many could not take it. */
export function paint(layers, scheme) {
  const next = new Map(here().now);
  const able = layers.filter((layer) => allows(layer, scheme));
  for (const { name } of able) {
    if (scheme === "float") next.delete(name);
    else next.set(name, scheme);
  }
  replace(next);
  return layers.length - able.length;
}

function back(from, to) {
  const step = here();
  if (!step[from].length) return;
  step[to].push(step.now);
  step.gesture = null;
  settle(step, step[from].pop());
}

export const undo = () => back("past", "future");
export const redo = () => back("future", "past");

/** What a layer takes now; of a model that is 1-bit already the server knows but one size. */
export const bytesOf = (layer) => layer.bytes[schemeOf(layer)] ?? layer.bytes.as_it_is ?? null;

const isTable = ({ role }) => role === "embedding" || role === "head";

/**
 * The bytes of the whole model now and with the choice. `whole` is what the server counted of the model as it is; where
 * it is less than its layers together, embedding and head are one matrix, which goes when both are swapped. Until it
 * has counted, tables of one shape may be one, and the sum is the most that it can be: `isMost`.
 */
export function sizes(layers, whole) {
  const float = (some) => some.reduce((sum, layer) => sum + (layer.bytes.float ?? 0), 0);
  const swapped = layers.filter((layer) => schemeOf(layer) !== "float");
  const small = swapped.reduce((sum, layer) => sum + bytesOf(layer), 0);
  const shared = whole !== null && whole < float(layers) && swapped.some(isTable);
  const twice = shared ? Math.max(...layers.filter(isTable).map((layer) => layer.bytes.float)) : 0;
  const tables = layers.filter(isTable).map(({ shape }) => shape.join());
  const before = whole ?? float(layers);
  const kept = before - float(swapped) + twice;
  const isMost = whole === null && new Set(tables).size < tables.length;
  return { float: before, small, kept, after: kept + small, swapped: swapped.length, isMost };
}

/** The layers that bear one bit best, up to a share of the weights of those that can be painted. */
export function best(layers, share) {
  const able = layers.filter((layer) => layer.cost && layer.block !== null);
  const most = share * able.reduce((sum, { weights }) => sum + weights, 0);
  const ordered = [...able].sort((a, b) => a.cost.kl / a.weights - b.cost.kl / b.weights);
  let taken = 0;
  return ordered.filter(({ weights }) => (taken += weights) <= most + 0.5);
}

hear("model", () => tell("choice", here().now));
hear("models", () => {
  if (model() === null) return;
  const names = new Set((model().layers ?? []).map(({ name }) => name));
  const step = here();
  if (!names.size || [...step.now.keys()].every((name) => names.has(name))) return;
  settle(step, new Map([...step.now].filter(([name]) => names.has(name))));
});
