// The models: named, chosen from files or dropped; loading, ready or gone.

import { ask, Problem } from "../lib/api.js";
import { announce, busy, complain, el, get, keyed, put } from "../lib/dom.js";
import { bytes, count } from "../lib/format.js";
import { choose, hear, known, model, refresh, take } from "../lib/store.js";
import * as uploads from "./uploads.js";

/** Uploads under way: {key, name, total, sent, control}. */
const sending = [];

const words = (each) =>
  ({
    loading: "loading…",
    closing: "closing…",
    failed: each.error ?? "failed",
    ready: [each.bytes ? bytes(each.bytes) : "", each.layers?.length ? `${count(each.layers.length)} layers` : "", each.description].filter(Boolean).join(" · "),
  })[each.status];

function makeModel({ id }) {
  const use = el("input", { type: "radio", name: "model", id: `use-${id}`, on: { change: () => choose(id) } });
  const again = el("button", { type: "button", class: "small", text: "Load again", on: { click: () => reload(id, again) } });
  const close = el("button", { type: "button", class: "small", text: "Close", on: { click: () => remove(id, close) } });
  return el("li", { class: "card" }, use, el("label", { for: `use-${id}` }, el("strong", {}), el("small", {})), again, close);
}

function updateModel(node, each) {
  const [use, label, again, close] = node.children;
  node.className = `card ${each.status}`;
  use.checked = each.id === known.model;
  put(label.firstChild, each.name);
  put(label.lastChild, words(each));
  again.hidden = each.status !== "failed";
  again.setAttribute("aria-label", `Load ${each.name} again`);
  close.setAttribute("aria-label", `Close ${each.name}`);
}

function makeUpload(upload) {
  const stop = el("button", { type: "button", class: "small", text: "Cancel", "aria-label": `Cancel the upload of ${upload.name}`, on: { click: () => upload.control.abort() } });
  return el("li", { class: "card loading" }, el("div", { class: "card-words" }, el("strong", { text: upload.name }), el("progress", { max: upload.total, "aria-label": `Upload of ${upload.name}` }), el("small", {})), stop);
}

function updateUpload(node, { sent, total }) {
  const [, bar, small] = node.firstChild.children;
  bar.value = sent;
  put(small, sent < total ? `${bytes(sent)} of ${bytes(total)}` : "received, looking at it…");
}

function draw() {
  const items = [...sending.map((upload) => ({ upload })), ...known.models.map((each) => ({ each }))];
  get("models-empty").hidden = items.length > 0;
  keyed(
    get("models"),
    items,
    ({ upload, each }) => upload?.key ?? each.id,
    ({ upload, each }) => (upload ? makeUpload(upload) : makeModel(each)),
    (node, { upload, each }) => (upload ? updateUpload(node, upload) : updateModel(node, each)),
  );
  drawSelect();
}

/** The same choice in the bar, which is always in sight. */
function drawSelect() {
  const select = get("which-model");
  const options = known.models.map(({ id, name, status }) => el("option", { value: id, text: status === "ready" ? name : `${name} (${status})` }));
  select.disabled = !options.length;
  const isSame = options.length && options.map((each) => each.value + each.text).join() === [...select.options].map((each) => each.value + each.text).join();
  if (!isSame) select.replaceChildren(...(options.length ? options : [el("option", { text: "none yet" })]));
  if (known.model) select.value = known.model;
}

const act = (button, work) => busy(button, get("model-problem"), work);

const reload = (id, button) => act(button, async () => take(await ask("POST", `models/${id}/reload`)));

/** From the press on it counts as closing: nothing that waits may be asked of it any more. */
const remove = (id, button) =>
  act(button, async () => {
    known.models.find((each) => each.id === id).status = "closing";
    draw();
    await ask("DELETE", `models/${id}`);
    await refresh();
    announce("Closed.");
    get("source").focus();
  });

function add(made) {
  take(made);
  choose(made.id);
  announce(`Loading ${made.name}`);
}

const load = (button, source) => act(button, async () => add(await ask("POST", "models", { source })));

async function name(event) {
  event.preventDefault();
  await load(get("name-form").querySelector("button"), get("source").value.trim());
  if (get("model-problem").hidden) get("source").value = "";
}

/** Show an upload while `work({tell, signal})` does it. */
async function upload(called, total, work) {
  const one = { key: `upload-${performance.now()}`, name: called, total, sent: 0, control: new AbortController() };
  const tell = (sent) => {
    one.sent = sent;
    draw();
  };
  sending.push(one);
  complain(get("model-problem"), null);
  draw();
  try {
    add(await work({ tell, signal: one.control.signal }));
  } catch (error) {
    if (error.name === "AbortError") announce("The upload was cancelled.");
    else complain(get("model-problem"), error);
  } finally {
    sending.splice(sending.indexOf(one), 1);
    draw();
  }
}

const uploadFile = (file) => upload(file.name, file.size, (how) => uploads.file(file, how));

const uploadFolder = ({ name: called, files }) =>
  upload(called, files.reduce((sum, { file }) => sum + file.size, 0), (how) => uploads.folder(called, files, how));

async function onDrop(event) {
  event.preventDefault();
  get("drop").classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const [directory] = entries.filter(({ isDirectory }) => isDirectory);
  if (directory) return uploadFolder(await uploads.dropped(directory));
  const files = [...event.dataTransfer.files];
  const safetensors = files.some((file) => file.name.endsWith(".safetensors"));
  if (safetensors) return uploadFolder({ name: "folder", files: files.map((file) => ({ path: file.name, file })) });
  if (!files.length) return complain(get("model-problem"), new Problem("Drop a file or a folder."));
  return Promise.all(files.map(uploadFile));
}

function beginDrop() {
  const drop = get("drop");
  for (const event of ["dragenter", "dragover"])
    addEventListener(event, (each) => {
      each.preventDefault();
      drop.classList.add("over");
    });
  addEventListener("dragleave", (each) => each.relatedTarget === null && drop.classList.remove("over"));
  addEventListener("drop", onDrop);
}

function beginPickers() {
  get("pick-file").addEventListener("click", () => get("file").click());
  get("pick-folder").addEventListener("click", () => get("folder").click());
  get("file").addEventListener("change", ({ target }) => {
    [...target.files].forEach(uploadFile);
    target.value = "";
  });
  get("folder").addEventListener("change", ({ target }) => {
    if (target.files.length) uploadFolder(uploads.picked(target.files));
    target.value = "";
  });
}

export function begin() {
  beginDrop();
  beginPickers();
  get("name-form").addEventListener("submit", name);
  get("try-tiny").addEventListener("click", () => load(get("try-tiny"), "tiny"));
  get("which-model").addEventListener("change", ({ target }) => choose(target.value));
  get("reload").addEventListener("click", () => act(get("reload"), async () => take(await ask("POST", `models/${model().id}/reload`))));
  hear("models", draw);
  hear("model", draw);
  hear("limits", ({ upload_bytes: most }) => put(get("upload-limit"), most ? `up to ${bytes(most)}` : ""));
}
