"""The `README.md` of a packed folder: what it is, what it came from, how to use it. Made from facts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bitnet_train.packed.card_data import card_head
from bitnet_train.packed.manifest import LayerEntry, Manifest
from bitnet_train.packed.sizes import table_sizes
from bitnet_train.quant.scheme import CODES, WeightScheme

_CARD = """{head}
# {title}

{layers} of this model have weights of {bits}. Their planes take {packed_bytes:,} bytes and their
scales {scale_bytes:,} bytes; in fp16 the same layers would take {fp16_bytes:,} bytes.
{tables}
```python
import bitnet_train  # pip install bitnet-train
model = bitnet_train.load(".")   # a Hugging Face model; .generate() runs on the packed weights
```

transformers alone does not know these weights. After `import bitnet_train` it does, and from the hub too:

```python
import bitnet_train  # without this line: "Unknown quantization type, got bitnet_train"
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```

`bitnet-train generate . generate.prompt="..."` does the same on the command line, and `bitnet-train validate .` checks
every byte against `manifest.json`.

{schemes}
{facts}"""


def model_card(manifest: Manifest) -> str:
    """Return the text of the card; of the manifest the files and the size of the whole folder are not read."""
    layers, sizes = manifest.layers, manifest.sizes
    names = sorted({layer.scheme.title for layer in layers})
    bits = " and ".join(sorted({_codes(layer.scheme) for layer in layers}))
    return _CARD.format(
        head=card_head(manifest, "bitnet-train"),
        title=f"{manifest.base_model}, {' and '.join(names)}",
        layers=_count_layers(layers),
        bits=bits,
        packed_bytes=sizes.packed_bytes,
        scale_bytes=sizes.scale_bytes,
        fp16_bytes=sizes.fp16_bytes,
        tables="".join(_table_lines(manifest)),
        schemes=scheme_lines(layers),
        facts=fact_lines({"recipe": manifest.recipe, **manifest.facts}),
    )


def _codes(scheme: WeightScheme) -> str:
    *most, last = (f"{code:+}" if code else "0" for code in CODES[scheme.code_set])
    return f"{', '.join(most)} or {last}"


def _count_layers(layers: Sequence[LayerEntry]) -> str:
    kinds = Counter(layer.kind for layer in layers)
    parts = [f"{kinds['linear']} linear layers"] if kinds["linear"] else []
    parts += ["The token embedding" if not parts else "the token embedding"] if kinds["embedding"] else []
    return " and ".join(parts)


def _table_lines(manifest: Manifest) -> Iterator[str]:
    bits = {entry.name: entry.bits for entry in manifest.tables}
    for table in table_sizes(manifest.tables, manifest.tied):
        yield (
            f"`{table.name}` is rounded to int{bits[table.name]} with one float16 scale a row: "
            f"{table.packed_bytes:,} bytes and {table.scale_bytes:,} bytes of scales, where fp16 would take "
            f"{table.fp16_bytes:,}.\n"
        )


def scheme_lines(layers: Sequence[LayerEntry]) -> str:
    """Return one line a scheme, with how many layers have it."""
    counts = Counter(_scheme_line(layer) for layer in layers)
    return "".join(f"- {count} layers: {line}\n" for line, count in counts.items())


def _scheme_line(layer: LayerEntry) -> str:
    scheme = layer.scheme
    scale = f"group of {scheme.group_size}" if scheme.granularity == "group" else scheme.granularity
    use = "rows looked up" if layer.kind == "embedding" else f"activations {layer.activation.name}"
    planes = f" of {scheme.planes} planes" if scheme.planes > 1 else ""
    return f"{scheme.name} weights{planes}, one {scheme.scale_dtype} scale per {scale}, {use}"


def fact_lines(facts: dict[str, Any]) -> str:
    """Return a table of the facts that fit in a line, or nothing."""
    plain = {key: value for key, value in facts.items() if isinstance(value, str | int | float) and value != ""}
    if not plain:
        return ""
    rows = "".join(
        f"| {key} | {str(value).replace('|', '/').replace(chr(10), ' ')} |\n" for key, value in plain.items()
    )
    return f"| fact | value |\n|---|---|\n{rows}"
