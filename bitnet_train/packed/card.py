"""The `README.md` of a packed folder: what it is, what it came from, how to use it. Made from facts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bitnet_train.packed.manifest import LayerEntry, Manifest
from bitnet_train.packed.sizes import LayerSize, table_sizes

_CARD = """---
library_name: bitnet-train
base_model: {base_model}
---

# {title}

{layers} of this model have weights of {bits}. Their planes take {packed_bytes:,} bytes and their
scales {scale_bytes:,} bytes; in fp16 the same layers would take {fp16_bytes:,} bytes.
{tables}
```python
import bitnet_train
model = bitnet_train.load(".")   # a Hugging Face model; .generate() runs on the packed weights
```

`bitnet-train generate . generate.prompt="..."` does the same on the command line, and `bitnet-train validate .` checks
every byte against `manifest.json`.

{schemes}
{facts}"""


def model_card(manifest: Manifest) -> str:
    """Return the text of the card; of the manifest the files and the size of the whole folder are not read."""
    layers, sizes = manifest.layers, manifest.sizes
    names = sorted({layer.scheme.name for layer in layers})
    bits = " and ".join({"binary": "-1 or +1", "ternary": "-1, 0 or +1"}.get(name, name) for name in names)
    return _CARD.format(
        base_model=manifest.base_model,
        title=f"{manifest.base_model}, {' and '.join(names)}",
        layers=_count_layers(layers),
        bits=bits,
        packed_bytes=sizes.packed_bytes,
        scale_bytes=sizes.scale_bytes,
        fp16_bytes=sizes.fp16_bytes,
        tables="".join(map(_table_line, table_sizes(manifest.tables, manifest.tied))),
        schemes=scheme_lines(layers),
        facts=fact_lines({"recipe": manifest.recipe, **manifest.facts}),
    )


def _count_layers(layers: Sequence[LayerEntry]) -> str:
    kinds = Counter(layer.kind for layer in layers)
    parts = [f"{kinds['linear']} linear layers"] if kinds["linear"] else []
    parts += ["The token embedding" if not parts else "the token embedding"] if kinds["embedding"] else []
    return " and ".join(parts)


def _table_line(table: LayerSize) -> str:
    return (
        f"`{table.name}` is rounded to int8 with one float16 scale a row: {table.packed_bytes:,} bytes and "
        f"{table.scale_bytes:,} bytes of scales, where fp16 would take {table.fp16_bytes:,}.\n"
    )


def scheme_lines(layers: Sequence[LayerEntry]) -> str:
    """Return one line a scheme, with how many layers have it."""
    counts = Counter(_scheme_line(layer) for layer in layers)
    return "".join(f"- {count} layers: {line}\n" for line, count in counts.items())


def _scheme_line(layer: LayerEntry) -> str:
    scheme = layer.scheme
    scale = f"group of {scheme.group_size}" if scheme.granularity == "group" else scheme.granularity
    use = "rows looked up" if layer.kind == "embedding" else f"activations {layer.activation.name}"
    return f"{scheme.name} weights, one {scheme.scale_dtype} scale per {scale}, {use}"


def fact_lines(facts: dict[str, Any]) -> str:
    """Return a table of the facts that fit in a line, or nothing."""
    plain = {key: value for key, value in facts.items() if isinstance(value, str | int | float) and value != ""}
    if not plain:
        return ""
    rows = "".join(
        f"| {key} | {str(value).replace('|', '/').replace(chr(10), ' ')} |\n" for key, value in plain.items()
    )
    return f"| fact | value |\n|---|---|\n{rows}"
