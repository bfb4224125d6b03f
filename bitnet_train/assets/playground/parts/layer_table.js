// Every layer as a row: what it is, what it weighs, what it costs, and a choice of its own.

import { el, get, keyed, put } from "../lib/dom.js";
import * as choice from "../lib/choice.js";
import { bytes, number } from "../lib/format.js";
import { known, model, scheme } from "../lib/store.js";
import { nameOf } from "./places.js";

const searched = (layer) => [layer.name, nameOf(layer), layer.role, scheme(choice.schemeOf(layer)).label].join(" ").toLowerCase();

function shown(layers) {
  const words = get("filter").value.toLowerCase();
  return layers.filter((layer) => searched(layer).includes(words.trim()));
}

const options = (layer) => known.schemes.map(({ id, label }) => el("option", { value: id, text: label, disabled: layer ? !choice.allows(layer, id) : false }));

function make(layer) {
  const select = el("select", { "aria-label": `Scheme of ${layer.name}`, on: { change: () => choice.paint([layer], select.value) } }, options(layer));
  return el("tr", {}, el("th", { scope: "row" }), ...Array.from({ length: 4 }, () => el("td", {})), el("td", {}, select));
}

function update(row, layer) {
  const scheme = choice.schemeOf(layer);
  const [name, shape, float, now, cost, select] = row.children;
  put(name, layer.name);
  put(shape, layer.shape.join(" × "));
  put(float, bytes(layer.bytes.float));
  put(now, bytes(choice.bytesOf(layer)));
  put(cost, layer.cost ? number(layer.cost.kl) : "–");
  row.classList.toggle("swapped", scheme !== "float");
  if (select.firstChild.value !== scheme) select.firstChild.value = scheme;
}

export function draw(layers) {
  if (!get("table-details").open) return;
  const rows = shown(layers);
  keyed(document.querySelector("#layer-table tbody"), rows, ({ name }) => `${known.model}/${name}`, make, update);
  put(get("filter-count"), `${rows.length} of ${layers.length} layers`);
}

function paintShown() {
  const select = get("paint-found");
  if (select.value) choice.paint(shown(model()?.layers ?? []), select.value);
  select.value = "";
}

function fillSchemes() {
  get("paint-found").replaceChildren(el("option", { value: "", text: "a scheme…" }), ...options(null));
}

export function begin() {
  const again = () => draw(model()?.layers ?? []);
  get("filter").addEventListener("input", again);
  get("table-details").addEventListener("toggle", () => {
    fillSchemes();
    again();
  });
  get("paint-found").addEventListener("change", paintShown);
}
