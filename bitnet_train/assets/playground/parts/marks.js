// The mark of a scheme on a cell: one sign for each, the same in the palette, the picture and the legend.

const SIGNS = { float: "", binary: "1", ternary: "T", binary2: "2", binary3: "3", binary4: "4" };

export const signOf = (scheme) => SIGNS[scheme] ?? scheme.slice(0, 1).toUpperCase();
