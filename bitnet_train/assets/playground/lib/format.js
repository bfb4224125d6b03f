// Numbers for people: what one can compare at a glance, and no digit that means nothing.

const BRITISH = "en-GB";
const UNITS = ["B", "kB", "MB", "GB", "TB"];
const MISSING = "–";

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** 3 significant digits, whole from 100 on, with thousands separated. */
export function number(value) {
  if (!isNumber(value)) return MISSING;
  const size = Math.abs(value);
  if (size >= 1e7 || (size > 0 && size < 1e-3)) return value.toExponential(1).replace("e+", "e");
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return value.toLocaleString(BRITISH, { maximumFractionDigits: digits, minimumFractionDigits: size >= 100 ? 0 : digits });
}

/** A mark on an axis: no digits but those that differ. */
export const tick = (value) => (Math.abs(value) >= 1e7 || (value !== 0 && Math.abs(value) < 1e-3) ? number(value) : value.toLocaleString(BRITISH, { maximumSignificantDigits: 4 }));

export const count = (value) => (isNumber(value) ? Math.round(value).toLocaleString(BRITISH) : MISSING);

export function bytes(value) {
  if (!isNumber(value)) return MISSING;
  let unit = 0;
  let rest = value;
  for (; rest >= 1000 && unit < UNITS.length - 1; unit += 1) rest /= 1000;
  const digits = unit === 0 || rest >= 100 ? 0 : rest >= 10 ? 1 : 2;
  return `${rest.toLocaleString(BRITISH, { maximumFractionDigits: digits, minimumFractionDigits: digits })} ${UNITS[unit]}`;
}

export const sizeTick = (value) => (value === 0 ? "0" : bytes(value).replace(/\.0+ /, " "));

export const percent = (share) => (isNumber(share) ? `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %` : MISSING);

export function seconds(value) {
  if (!isNumber(value)) return MISSING;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 60) return `${Math.round(value)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(value % 60)).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** "×3.1", or "÷4.7" where it became less. */
export function factor(before, after) {
  if (!isNumber(before) || !isNumber(after) || before <= 0 || after <= 0) return "";
  const more = after >= before;
  const ratio = more ? after / before : before / after;
  return `${more ? "×" : "÷"}${ratio < 10 ? ratio.toFixed(2) : number(ratio)}`;
}

/** Any value of a configuration or a fact, on one line. */
export function anything(value) {
  if (value === null || value === undefined) return MISSING;
  if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString(BRITISH) : number(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
