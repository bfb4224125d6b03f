// From what a layer costs alone at one bit to one of seven shades. Costs span orders of magnitude: the scale is of logs.

import { number } from "../lib/format.js";

export const SHADES = 7;

/** A function from KL to a shade 0..6, and the ends of the scale; null while nothing is measured. */
export function scale(layers) {
  const costs = layers.filter(({ cost }) => cost).map(({ cost }) => Math.max(cost.kl, 1e-9));
  if (!costs.length) return null;
  const [low, high] = [Math.min(...costs), Math.max(...costs)].map(Math.log);
  const width = Math.max(high - low, 1e-9);
  const shade = (kl) => Math.min(SHADES - 1, Math.floor((SHADES * (Math.log(Math.max(kl, 1e-9)) - low)) / width));
  return { shade, low: Math.exp(low), high: Math.exp(high) };
}

export const words = (cost) => (cost ? `KL ${number(cost.kl)} alone at one bit` : "not measured");
