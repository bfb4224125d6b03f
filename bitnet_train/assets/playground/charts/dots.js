// What was tried, as dots: size across, perplexity up, both as logs. Lower and further left is better.

import { svg } from "../lib/dom.js";
import { bytes, number, sizeTick } from "../lib/format.js";
import { frame } from "./frame.js";
import { scale } from "./scale.js";

const describe = (dots) => dots.map(({ name, bytes: size, perplexity }) => `${name}: ${bytes(size)}, perplexity ${number(perplexity)}.`).join(" ");

/** dots: [{name, bytes, perplexity, kind: original|tried|now}] */
export function dots(width, height, { title, dots: all }) {
  const x = scale(all.map((dot) => dot.bytes), { most: Math.max(2, Math.floor(width / 100)), zero: true });
  const y = scale(all.map((dot) => dot.perplexity), { logs: 4 });
  const labels = { xLabel: "size", yLabel: "perplexity", xWords: sizeTick };
  const drawn = frame(width, height, { title, description: describe(all), x, y, ...labels });
  for (const dot of all) {
    const [left, top] = [drawn.x(dot.bytes), drawn.y(dot.perplexity)];
    if (dot.kind === "original") drawn.node.append(svg("rect", { class: "dot original", x: left - 5, y: top - 5, width: 10, height: 10, rx: 2 }));
    else drawn.node.append(svg("circle", { class: `dot ${dot.kind}`, cx: left, cy: top, r: dot.kind === "now" ? 6 : 4 }));
  }
  return drawn.node;
}
