// Requests to the playground's own server: the token of the address, errors in words.

import * as kept from "./kept.js";

const TOKEN = "playground.token";
const ROOT = new URL("api/", document.baseURI);

export class Problem extends Error {
  constructor(message, { status = 0, code = null, param = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

/** Move the token from the address to the tab's storage, so that no screenshot or history holds it. */
export function takeToken() {
  const address = new URL(location.href);
  const token = address.searchParams.get("token");
  if (token === null) return;
  kept.write(TOKEN, token);
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

/** Accept what a person pasted: the whole address, or the token alone. */
export function acceptToken(text) {
  kept.write(TOKEN, text.match(/[?&]token=([^&#\s]+)/)?.[1] ?? text.trim());
}

export const address = (path) => new URL(path, ROOT);

export function headers(more = {}) {
  const token = kept.read(TOKEN);
  return token ? { Authorization: `Bearer ${token}`, ...more } : more;
}

export const silent = () =>
  new Problem("The playground does not answer. Is `bitnet-train playground` still running in its terminal?");

export function problemOf(status, text) {
  try {
    const { message, code, param } = JSON.parse(text).error;
    return new Problem(message, { status, code, param });
  } catch {
    return new Problem(`The playground answered ${status}${text ? `: ${text.slice(0, 200)}` : ""}.`, { status });
  }
}

/** Ask and return the JSON of the answer; throws `Problem`. */
export async function ask(method, path, body, signal) {
  const more = body === undefined ? {} : { "Content-Type": "application/json" };
  let answer;
  try {
    answer = await fetch(address(path), {
      method,
      headers: headers(more),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    throw error.name === "AbortError" ? error : silent();
  }
  const text = await answer.text();
  if (!answer.ok) throw problemOf(answer.status, text);
  return text ? JSON.parse(text) : null;
}

/**
 * Send a file as it is. `fetch` tells nothing of how far an upload is, so this is an XMLHttpRequest.
 * Calls `tell(bytes)` as they leave; `signal` gives up.
 */
export function send(method, path, file, { tell = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, address(path));
    for (const [name, value] of Object.entries(headers({ "Content-Type": "application/octet-stream" })))
      request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => tell(event.loaded));
    request.addEventListener("load", () => {
      if (request.status >= 400) reject(problemOf(request.status, request.responseText));
      else resolve(request.responseText ? JSON.parse(request.responseText) : null);
    });
    request.addEventListener("error", () =>
      reject(
        new Problem(
          "The upload broke off. Either the playground refused the file by its first bytes or its size, or it no longer runs.",
        ),
      ),
    );
    request.addEventListener("abort", () => reject(new DOMException("The upload was cancelled.", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
