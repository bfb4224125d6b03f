// Curves over steps. Each has a colour, a dash and a mark at its end, so that no one of them has to tell them apart.

import { svg } from "../lib/dom.js";
import { count, number } from "../lib/format.js";
import { frame } from "./frame.js";
import { scale } from "./scale.js";

export const MOST_SERIES = 6;
const MARKS = [
  "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",
  "M-4,-4H4V4H-4Z",
  "M0,-5L5,4H-5Z",
  "M0,-5L5,0L0,5L-5,0Z",
  "M-5,-4H5L0,5Z",
  "M-5,-1.5H-1.5V-5H1.5V-1.5H5V1.5H1.5V5H-1.5V1.5H-5Z",
];

/** A swatch for a legend: the same line and mark. */
export const swatch = (index) =>
  svg(
    "svg",
    { class: `swatch s${index}`, viewBox: "0 0 28 12", width: 28, height: 12, "aria-hidden": "true" },
    svg("path", { class: "curve", d: "M1,6H27" }),
    svg("path", { class: "mark", d: MARKS[index], transform: "translate(20 6)" }),
  );

const ends = (points) => `from ${number(points[0].value)} to ${number(points.at(-1).value)}`;

const describe = (series) =>
  series.map(({ name, points }) => `${name}: ${points.length} points, ${ends(points)}, to step ${count(points.at(-1).step)}.`).join(" ");

/** series: [{name, index, points: [{step, value}]}], each with points. */
export function lines(width, height, { title, series, yLabel }) {
  const all = series.flatMap(({ points }) => points);
  const x = scale(all.map(({ step }) => step), { most: Math.max(2, Math.floor(width / 90)), zero: true });
  const y = scale(all.map(({ value }) => value), { logs: 20 });
  const drawn = frame(width, height, { title, description: describe(series), x, y, xLabel: "step", yLabel, xWords: count });
  for (const { index, points } of series) drawn.node.append(...curve(drawn, index, points));
  return drawn.node;
}

function curve({ x, y }, index, points) {
  const path = points.map(({ step, value }, place) => `${place ? "L" : "M"}${x(step).toFixed(1)},${y(value).toFixed(1)}`).join("");
  const last = points.at(-1);
  return [
    svg("path", { class: `curve s${index}`, d: path }),
    svg("path", { class: `mark s${index}`, d: MARKS[index], transform: `translate(${x(last.step)} ${y(last.value)})` }),
  ];
}
