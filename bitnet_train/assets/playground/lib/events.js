// Server-sent events by fetch: EventSource can send neither a token in a header nor a Last-Event-ID of its own choosing.

import { address, headers, problemOf } from "./api.js";

/** Parse one block of lines into {id, event, data}; null for a comment. */
export function parse(block) {
  const event = { id: null, event: "message", data: "" };
  const data = [];
  for (const line of block.split(/\r\n|\r|\n/)) {
    if (!line || line.startsWith(":")) continue;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") data.push(value);
    else if (field === "id") event.id = value;
    else if (field === "event") event.event = value;
  }
  if (!data.length) return null;
  event.data = data.join("\n");
  return event;
}

/** Blocks end with an empty line; what is left over waits for more bytes. */
export function split(text) {
  const blocks = text.split(/\r\n\r\n|\n\n|\r\r/);
  return { blocks: blocks.slice(0, -1), rest: blocks.at(-1) };
}

/** Yield the events of one connection, from the one after `after`. */
async function* connection(path, after, signal) {
  const more = { Accept: "text/event-stream", ...(after === null ? {} : { "Last-Event-ID": after }) };
  const answer = await fetch(address(path), { headers: headers(more), signal, cache: "no-store" });
  if (!answer.ok) throw problemOf(answer.status, await answer.text());
  let text = "";
  for await (const bytes of chunks(answer.body.pipeThrough(new TextDecoderStream()))) {
    const { blocks, rest } = split(text + bytes);
    text = rest;
    yield* blocks.map(parse).filter(Boolean);
  }
}

/** Async iteration of streams is younger than the streams: read by hand. */
async function* chunks(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * Call `tell(event, data)` for each event until it returns false. A connection that breaks off is taken up again
 * where it was, after 0.5 s, then 1, 2, 4, 5; an answer that refuses is final and thrown.
 */
export async function follow(path, tell, signal) {
  let after = null;
  for (let wait = 500; !signal?.aborted; wait = Math.min(2 * wait, 5000)) {
    try {
      for await (const { id, event, data } of connection(path, after, signal)) {
        after = id ?? after;
        wait = 500;
        if (tell(event, JSON.parse(data)) === false) return;
      }
    } catch (error) {
      if (error.status || error.name === "AbortError") throw error;
    }
    await pause(wait);
  }
}
