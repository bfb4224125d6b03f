// Where two continuations part, and which tokens differ after that: pure functions over token ids.

/** The first index at which the two differ; null while one is the beginning of the other. */
export function partsAt(left, right) {
  const most = Math.min(left.length, right.length);
  for (let index = 0; index < most; index += 1) if (left[index] !== right[index]) return index;
  return null;
}

/** Lengths of common subsequences of all tails, as rows of typed arrays. */
function tails(left, right) {
  const rows = Array.from({ length: left.length + 1 }, () => new Uint16Array(right.length + 1));
  for (let i = left.length - 1; i >= 0; i -= 1)
    for (let j = right.length - 1; j >= 0; j -= 1)
      rows[i][j] = left[i] === right[j] ? rows[i + 1][j + 1] + 1 : Math.max(rows[i + 1][j], rows[i][j + 1]);
  return rows;
}

const SHORTEST_AGREEMENT = 3;

/** Index pairs of an alignment without the runs that are too short to be more than chance: a comma, a "the". */
function agreements(pairs) {
  const runs = [];
  for (const [i, j] of pairs) {
    const [a, b] = runs.at(-1)?.at(-1) ?? [];
    if (a === i - 1 && b === j - 1) runs.at(-1).push([i, j]);
    else runs.push([[i, j]]);
  }
  return runs.filter(({ length }) => length >= SHORTEST_AGREEMENT).flat();
}

/** Pairs of indices at which two lists agree, in order, as many as can be. */
function align(a, b) {
  const [rows, pairs] = [tails(a, b), []];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) pairs.push([i++, j++]);
    else if (rows[i + 1][j] >= rows[i][j + 1]) i += 1;
    else j += 1;
  }
  return pairs;
}

const without = (length, parts, agreed) => {
  const same = new Set(agreed);
  return new Set(Array.from({ length }, (_, index) => index).filter((index) => !same.has(index)).map((index) => parts + index));
};

/** {parts, left, right}: the index of parting, and for each side the set of indices that the other does not have. */
export function differences(left, right) {
  const parts = partsAt(left, right);
  if (parts === null) return { parts, left: new Set(), right: new Set() };
  const [a, b] = [left.slice(parts), right.slice(parts)];
  const agreed = agreements(align(a, b));
  return {
    parts,
    left: without(a.length, parts, agreed.map(([i]) => i)),
    right: without(b.length, parts, agreed.map(([, j]) => j)),
  };
}
