// The few lines that other pages take a framework for. Whatever comes from a server is text here, never markup.

const SVG = "http://www.w3.org/2000/svg";

function assign(node, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "vars") for (const [key, each] of Object.entries(value)) node.style.setProperty(`--${key}`, each);
    else if (name === "data") Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
}

/** Make an element; `children` are elements or text. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  assign(node, properties);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function svg(tag, properties = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  assign(node, properties);
  node.append(...children.flat().filter(Boolean));
  return node;
}

export const get = (id) => document.getElementById(id);

/** Put text in place only where it differs, so that screen readers and selections are left in peace. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A function that runs once, at the next frame, however often it is called until then. */
export function soon(work) {
  let waits = false;
  const run = () => {
    waits = false;
    work();
  };
  return () => {
    if (waits) return;
    waits = true;
    if (document.hidden) setTimeout(run, 200);
    else requestAnimationFrame(run);
  };
}

/** A function that runs `milliseconds` after its last call. */
export function later(milliseconds, work) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}

/** Move the children of `parent` into the order of `items`, keeping each item's node: no flicker, no lost focus. */
export function keyed(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  items.forEach((item, place) => {
    const name = String(key(item));
    let node = old.get(name);
    if (!node) {
      node = make(item);
      node.dataset.key = name;
    }
    old.delete(name);
    update(node, item);
    if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null);
  });
  old.forEach((node) => node.remove());
}

/** Say something to who listens to the page instead of looking at it. */
export function announce(text) {
  put(get("announcements"), text);
}

/** Show what went wrong where it went wrong; `null` takes it away. */
export function complain(node, error) {
  node.hidden = !error;
  put(node, error ? error.message : "");
}

/** Run what a button started: no second press meanwhile, and an error where it belongs. */
export async function busy(button, problem, work) {
  if (button.getAttribute("aria-disabled") === "true") return undefined;
  button.setAttribute("aria-disabled", "true");
  complain(problem, null);
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") complain(problem, error);
    return undefined;
  } finally {
    button.removeAttribute("aria-disabled");
  }
}
