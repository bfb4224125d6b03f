// What the tab or the browser keeps, as JSON. Storage may be forbidden; then it lasts as long as the page.

const instead = new Map();

function attempt(storage, use) {
  try {
    return use(window[storage]);
  } catch {
    return undefined;
  }
}

export function read(key, otherwise = null, storage = "sessionStorage") {
  const text = attempt(storage, (kept) => kept.getItem(key)) ?? instead.get(key);
  try {
    return text === undefined || text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

export function write(key, value, storage = "sessionStorage") {
  const text = JSON.stringify(value);
  instead.set(key, text);
  attempt(storage, (kept) => kept.setItem(key, text));
}
