// Axes, grid lines and words that lines and dots share. Drawn anew for the width there is, so text keeps its size.

import { svg } from "../lib/dom.js";
import { tick } from "../lib/format.js";

const LEFT = 52;
const RIGHT = 14;
const TOP = 26;
const BOTTOM = 38;

let made = 0;

/** {node, x(value), y(value)}: an SVG with title, description, axes and room for what is drawn. */
export function frame(width, height, { title, description, x, y, xLabel, yLabel, xWords = tick, yWords = tick }) {
  const id = `chart-${(made += 1)}`;
  const across = (value) => LEFT + x.at(value) * (width - LEFT - RIGHT);
  const up = (value) => height - BOTTOM - y.at(value) * (height - TOP - BOTTOM);
  const node = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": `${id}-title ${id}-words` },
    svg("title", { id: `${id}-title`, text: title }),
    svg("desc", { id: `${id}-words`, text: description }),
  );
  for (const value of y.ticks) {
    node.append(svg("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: up(value), y2: up(value) }));
    node.append(svg("text", { class: "tick", x: LEFT - 8, y: up(value) + 4, "text-anchor": "end", text: yWords(value) }));
  }
  for (const value of x.ticks)
    node.append(svg("text", { class: "tick", x: across(value), y: height - BOTTOM + 17, "text-anchor": "middle", text: xWords(value) }));
  node.append(svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM }));
  node.append(svg("text", { class: "name", x: width - RIGHT, y: height - 5, "text-anchor": "end", text: xLabel }));
  node.append(svg("text", { class: "name", x: 0, y: 12, text: yLabel + (y.log ? ", logarithmic" : "") }));
  return { node, x: across, y: up };
}

/** Draw into a box whenever its width changes; the box keeps its height by itself. Returns a function to draw anew. */
export function responsive(box, draw) {
  let width = 0;
  const again = () => {
    const made = width > 0 ? draw(width) : null;
    box.replaceChildren(...(made ? [made] : []));
  };
  new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (now === width) return;
    width = now;
    again();
  }).observe(box);
  return again;
}
