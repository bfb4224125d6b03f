// A file, or a folder file by file, on its way to the playground. What it may not take is refused before it is sent.

import { ask, Problem, send } from "../lib/api.js";
import { bytes } from "../lib/format.js";
import { known } from "../lib/store.js";

/** What a model folder is read for. Everything else stays behind: pickles, logs, pictures. */
const OF_A_MODEL =
  /^(config|generation_config|special_tokens_map|added_tokens|vocab|tokenizer[\w.-]*)\.json$|^(tokenizer\.model|merges\.txt|chat_template\.jinja)$|\.safetensors(\.index\.json)?$/;

function requireFits(total) {
  const most = known.limits.upload_bytes;
  if (most && total > most)
    throw new Problem(`That is ${bytes(total)}; this playground takes ${bytes(most)}. Name it by its path instead: nothing is copied then.`);
}

/** GGUF files begin with these four letters; a look at them saves the way. */
async function requireGguf(file) {
  const start = await file.slice(0, 4).text();
  if (start !== "GGUF") throw new Problem(`${file.name} is no GGUF: such a file begins with the letters GGUF. A folder with safetensors can be dropped whole.`);
}

/** Upload one GGUF; `tell(bytes)` as they leave. Returns the model. */
export async function file(one, { tell, signal }) {
  requireFits(one.size);
  await requireGguf(one);
  return send("POST", `uploads?name=${encodeURIComponent(one.name)}`, one, { tell, signal });
}

/** Upload the files of a folder that are of a model, one after another. Returns the model. */
export async function folder(name, files, { tell, signal }) {
  const wanted = files.filter(({ path }) => OF_A_MODEL.test(path) && !path.includes("/"));
  if (!wanted.some(({ path }) => path === "config.json")) throw new Problem(`${name} holds no config.json: it is no model folder.`);
  requireFits(wanted.reduce((sum, { file: each }) => sum + each.size, 0));
  const list = wanted.map(({ path, file: each }) => ({ name: path, bytes: each.size }));
  const { upload } = await ask("POST", "uploads/folder", { name, files: list }, signal);
  let sent = 0;
  for (const { path, file: each } of wanted) {
    await send("PUT", `uploads/${upload}/${encodeURIComponent(path)}`, each, { tell: (now) => tell(sent + now), signal });
    sent += each.size;
  }
  return ask("POST", `uploads/${upload}/done`, undefined, signal);
}

/** From a folder that was picked: {name, files}. */
export function picked(list) {
  const files = [...list].map((each) => ({ path: each.webkitRelativePath.split("/").slice(1).join("/"), file: each }));
  return { name: list[0]?.webkitRelativePath.split("/")[0] ?? "folder", files };
}

const readAll = (reader) => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
const toFile = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));

/** From a folder that was dropped: {name, files}; only its own files, not those of folders in it. */
export async function dropped(directory) {
  const [reader, files] = [directory.createReader(), []];
  for (let some = await readAll(reader); some.length; some = await readAll(reader))
    for (const entry of some.filter(({ isFile }) => isFile)) files.push({ path: entry.name, file: await toFile(entry) });
  return { name: directory.name, files };
}
