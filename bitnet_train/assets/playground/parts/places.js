// Where a layer stands in the picture: blocks by roles, and what lies outside the blocks.

export const ROLES = ["q", "k", "v", "o", "gate", "up", "down", "other"];

/** {blocks, roles, at(block, role) -> layers, outside} of a list of layers. */
export function places(layers) {
  const inside = layers.filter(({ block }) => block !== null && block !== undefined);
  const cells = new Map();
  for (const layer of inside) {
    const key = `${layer.block}/${layer.role}`;
    cells.set(key, [...(cells.get(key) ?? []), layer]);
  }
  const present = new Set(inside.map(({ role }) => role));
  return {
    blocks: [...new Set(inside.map(({ block }) => block))].sort((a, b) => a - b),
    roles: [...ROLES.filter((role) => present.has(role)), ...[...present].filter((role) => !ROLES.includes(role))],
    at: (block, role) => cells.get(`${block}/${role}`) ?? [],
    outside: layers.filter((layer) => !inside.includes(layer)),
    inside,
  };
}

/** A short name: "block 3 gate", "embedding". */
export const nameOf = (layer) =>
  layer.block === null || layer.block === undefined ? layer.role : `block ${layer.block} ${layer.role}`;
