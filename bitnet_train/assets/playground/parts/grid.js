// The picture of the layers: an ARIA grid of blocks and roles, painted by pointer or keys. It is laid out along the
// blocks where there is room and down them where there is not; the DOM follows, so rows are rows to every reader.

import { el, get, keyed, put } from "../lib/dom.js";
import { schemeOf } from "../lib/choice.js";
import { number } from "../lib/format.js";
import { scheme } from "../lib/store.js";
import { words } from "./heat.js";
import { signOf } from "./marks.js";
import { nameOf } from "./places.js";

const NARROWEST_CELL = 24;
const ROOMY_CELL = 74;
const LABELS = 58;

/** Where the focus is, as [row, column]; headers are row 0 and column 0. */
const focus = { row: 1, column: 1 };
let drawn = { rows: 0, columns: 0 };
let hooks = { paint: () => {}, show: () => {} };

/** `paint(layers)` is called with what was pressed, `show(layers)` with what is looked at. */
export function begin(given) {
  hooks = given;
  const grid = get("grid");
  grid.addEventListener("keydown", onKey);
  grid.addEventListener("click", ({ target }) => onPress(target.closest("[data-place]")));
  grid.addEventListener("focusin", ({ target }) => onLook(target.closest("[data-place]"), true));
  grid.addEventListener("pointerover", ({ target }) => onLook(target.closest("[data-place]"), false));
  grid.addEventListener("pointerleave", () => onLook(grid.querySelector("[tabindex='0']"), false));
  grid.addEventListener("pointerdown", onDrag);
}

const isLying = (blocks) => get("grid").clientWidth >= LABELS + blocks * NARROWEST_CELL;

/** The table to draw: rows of {label, cells: [{label, layers}]}, the header row first. */
function table({ blocks, roles, at, inside }) {
  const lying = isLying(blocks.length);
  const [down, along] = lying ? [roles, blocks] : [blocks, roles];
  const cell = (row, column) => (lying ? at(column, row) : at(row, column));
  const label = (value) => (typeof value === "number" ? String(value) : value);
  const ofBlock = (block) => inside.filter((layer) => layer.block === block);
  const ofRole = (role) => inside.filter((layer) => layer.role === role);
  const whole = (value) => (typeof value === "number" ? ofBlock(value) : ofRole(value));
  const head = [{ label: "all", layers: inside }, ...along.map((each) => ({ label: label(each), layers: whole(each), of: each }))];
  const body = down.map((row) => [
    { label: label(row), layers: whole(row), of: row },
    ...along.map((column) => ({ layers: cell(row, column) })),
  ]);
  return { lying, rows: [head, ...body], columns: along.length + 1 };
}

export function draw(where, heat) {
  const grid = get("grid");
  const { lying, rows, columns } = table(where);
  grid.classList.toggle("lying", lying);
  grid.classList.toggle("roomy", (grid.clientWidth - LABELS) / (columns - 1) >= ROOMY_CELL);
  grid.style.setProperty("--columns", columns - 1);
  grid.setAttribute("aria-rowcount", rows.length);
  grid.setAttribute("aria-colcount", columns);
  drawn = { rows: rows.length, columns };
  focus.row = Math.min(focus.row, rows.length - 1);
  focus.column = Math.min(focus.column, columns - 1);
  keyed(
    grid,
    rows.map((cells, row) => ({ cells, row })),
    ({ row }) => row,
    () => el("div", { role: "row" }),
    (node, { cells, row }) => drawRow(node, cells, row, heat),
  );
}

function drawRow(node, cells, row, heat) {
  const role = (column) => (row === 0 ? "columnheader" : column === 0 ? "rowheader" : "gridcell");
  keyed(
    node,
    cells.map((cell, column) => ({ ...cell, column })),
    ({ column }) => column,
    () => el("div", {}, el("span", {}), el("small", {})),
    (each, cell) => drawCell(each, cell, { row, column: cell.column, role: role(cell.column) }, heat),
  );
}

function drawCell(node, { layers, label, of }, { row, column, role }, heat) {
  node.layers = layers;
  node.setAttribute("role", role);
  node.dataset.place = `${row},${column}`;
  node.tabIndex = row === focus.row && column === focus.column ? 0 : -1;
  if (label === undefined) drawLayer(node, layers, heat);
  else drawHeader(node, label, of);
}

function drawHeader(node, label, of) {
  const whole = of === undefined ? "every block and role" : typeof of === "number" ? `block ${of}` : `role ${of}`;
  node.className = "head";
  put(node.firstChild, label);
  node.setAttribute("aria-label", whole);
}

function drawLayer(node, layers, heat) {
  if (!layers.length) {
    node.className = "none";
    node.setAttribute("aria-label", "none");
    return;
  }
  const [first] = layers;
  const chosen = schemeOf(first);
  const costs = layers.filter(({ cost }) => cost);
  const worst = costs.length ? Math.max(...costs.map(({ cost }) => cost.kl)) : null;
  node.className = worst === null ? "cell unknown" : `cell heat-${heat.shade(worst)}`;
  node.firstChild.className = chosen === "float" ? "" : "chip";
  put(node.firstChild, signOf(chosen));
  put(node.lastChild, worst === null ? "" : number(worst));
  node.setAttribute("aria-label", `${nameOf(first)}: ${scheme(chosen).label}, ${words(worst === null ? null : { kl: worst })}`);
}

function onLook(node, isFocus) {
  if (!node) return;
  if (isFocus) [focus.row, focus.column] = node.dataset.place.split(",").map(Number);
  if (isFocus) roam();
  hooks.show(node.layers);
}

function roam() {
  for (const node of get("grid").querySelectorAll("[data-place]"))
    node.tabIndex = node.dataset.place === `${focus.row},${focus.column}` ? 0 : -1;
}

function onPress(node) {
  if (node?.layers?.length) hooks.paint(node.layers);
}

/** Holding the button down and moving paints what is passed. */
function onDrag({ target, button, pointerType }) {
  const from = target.closest(".cell");
  if (!from || button !== 0 || pointerType === "touch") return;
  let last = from;
  const move = (event) => {
    const over = document.elementFromPoint(event.clientX, event.clientY)?.closest("#grid .cell");
    if (!over || over === last) return;
    hooks.paint([...(last === from ? from.layers : []), ...over.layers]);
    last = over;
  };
  addEventListener("pointermove", move);
  addEventListener("pointerup", () => removeEventListener("pointermove", move), { once: true });
}

const MOVES = {
  ArrowUp: () => [focus.row - 1, focus.column],
  ArrowDown: () => [focus.row + 1, focus.column],
  ArrowLeft: () => [focus.row, focus.column - 1],
  ArrowRight: () => [focus.row, focus.column + 1],
  Home: (far) => [far ? 0 : focus.row, 0],
  End: (far) => [far ? drawn.rows - 1 : focus.row, drawn.columns - 1],
};

function onKey(event) {
  const move = MOVES[event.key];
  if (move && !event.altKey) {
    event.preventDefault();
    const [row, column] = move(event.ctrlKey);
    get("grid")
      .querySelector(`[data-place="${between(row, drawn.rows)},${between(column, drawn.columns)}"]`)
      ?.focus();
  } else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    onPress(event.target.closest("[data-place]"));
  }
}

const between = (value, count) => Math.max(0, Math.min(count - 1, value));
