// What can be drawn of a run: the metrics its points hold, and one of them as a series.

const NOT_A_METRIC = new Set(["step", "tokens", "epoch", "elapsed_s", "seconds", "time"]);
const FIRST = ["train/loss", "train_loss", "loss", "validation/loss", "validation_loss", "validation/perplexity"];

export function metricsOf(curves) {
  const names = new Set(curves.flatMap((curve) => curve.flatMap((point) => Object.keys(point).filter((name) => Number.isFinite(point[name])))));
  const found = [...names].filter((name) => !NOT_A_METRIC.has(name));
  const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  return found.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
}

/** Points of one metric in order of steps; a step that was logged twice counts as it was last. */
export function seriesOf(curve, metric) {
  const points = new Map(curve.filter((point) => Number.isFinite(point[metric])).map((point) => [point.step, point[metric]]));
  return [...points].sort(([a], [b]) => a - b).map(([step, value]) => ({ step, value }));
}

/** So many points that a screen can show; the first and the last are kept. */
export function thin(points, most = 400) {
  const each = Math.ceil(points.length / most);
  return points.filter((_, place) => place % each === 0 || place === points.length - 1);
}
