// A plain table from rows of text: the other way to read a chart.

import { el } from "../lib/dom.js";

/** heads, rows: lists of text or elements, the first of each row its header. */
export function table(caption, heads, rows) {
  const cell = (value, place) => el(place ? "td" : "th", place ? {} : { scope: "row" }, value);
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", { class: "unseen", text: caption }),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))),
    ),
  );
}

/** The same folded away under a chart; it stays open where it was opened. */
export function folded(box, summary, made) {
  const isOpen = box.querySelector("details")?.open ?? false;
  box.replaceChildren(el("details", { open: isOpen }, el("summary", { text: summary }), made));
}
