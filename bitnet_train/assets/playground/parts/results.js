// What came of a run, in the few figures that one compares; the report of the run has the rest.

import { bytes, count, number, percent, seconds } from "../lib/format.js";

const at = (facts, path) => path.split(".").reduce((value, key) => value?.[key], facts);
const held = (facts) => at(facts, "run.texts.0") ?? at(facts, "evaluate.texts.0");

/** [what it is called, how it is found, how it is written] */
const FIGURES = [
  ["Perplexity of the original", (facts) => at(facts, "run.perplexity.full_precision"), number],
  ["Perplexity just swapped", (facts) => at(facts, "run.perplexity.swapped") ?? at(facts, "convert.perplexity"), number],
  ["Perplexity trained", (facts) => at(facts, "run.perplexity.trained") ?? at(facts, "train.metrics.val_perplexity"), number],
  ["Trained to original", (facts) => at(facts, "run.perplexity.ratio"), (value) => `×${number(value)}`],
  ["KL divergence", (facts) => held(facts)?.kl, number],
  ["Same first choice", (facts) => held(facts)?.top1_agreement, percent],
  ["Layers in fp16", (facts) => at(facts, "run.size.fp16_bytes"), bytes],
  ["Layers packed", (facts) => at(facts, "run.size.packed_bytes"), bytes],
  ["Validation", (facts) => at(facts, "run.validation"), String],
  ["Steps", (facts) => at(facts, "train.steps"), count],
  ["Tokens", (facts) => at(facts, "train.tokens"), count],
  ["Training took", (facts) => at(facts, "train.seconds"), seconds],
];

const isThere = (value) => typeof value === "number" || typeof value === "string";

/** Rows of text, one a figure that at least one of the runs has. */
export function results(runs) {
  const row = ([name, find, words]) => [name, ...runs.map(({ facts }) => (isThere(find(facts)) ? words(find(facts)) : "–"))];
  return FIGURES.filter(([, find]) => runs.some(({ facts }) => isThere(find(facts)))).map(row);
}
