// Round numbers along an axis, straight or of logs.

const STEPS = [1, 2, 5, 10];

function step(width, most) {
  const power = 10 ** Math.floor(Math.log10(width / most));
  return power * STEPS.find((each) => width / (each * power) <= most);
}

function straight(low, high, most) {
  const each = step(high - low, most);
  const first = Math.ceil(low / each - 1e-9) * each;
  const number = Math.floor((high - first) / each + 1e-9) + 1;
  return Array.from({ length: number }, (_, place) => Number((first + place * each).toPrecision(12)));
}

function ofLogs(low, high, most) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
    for (const each of [1, 2, 5]) all.push(each * 10 ** power);
  const inside = all.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  if (inside.length <= most) return inside.length >= 2 ? inside : straight(low, high, most);
  const tens = inside.filter((value) => Number.isInteger(Number(Math.log10(value).toFixed(9))));
  return tens.filter((_, place) => place % Math.ceil(tens.length / most) === 0);
}

/** {at(value) -> 0..1, ticks} for values; where the largest is more than `logs` times the least, as logs. */
export function scale(values, { most = 5, logs = Infinity, zero = false } = {}) {
  const finite = values.filter(Number.isFinite);
  let [low, high] = finite.length ? [Math.min(...finite), Math.max(...finite)] : [0, 1];
  if (zero) low = Math.min(0, low);
  if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
  const log = low > 0 && high / low > logs;
  const place = log ? Math.log : (value) => value;
  const margin = zero || log ? 0 : (high - low) * 0.04;
  const [from, to] = [place(low - (low > 0 ? Math.min(margin, low) : margin)), place(high + margin)];
  return { at: (value) => (place(value) - from) / (to - from), ticks: log ? ofLogs(low, high, most) : straight(low, high, most), log };
}
