"""The `README.md` beside the file: what it is, what it came from, how to run it. Made from facts alone."""

from __future__ import annotations

from typing import Any

from bitnet_train.exporters.gguf.block_type import Choice
from bitnet_train.packed.card import fact_lines, scheme_lines
from bitnet_train.packed.card_data import card_head
from bitnet_train.packed.manifest import Manifest

_CARD = """{head}
# {base_model}, {type}

`model.gguf` runs in stock llama.cpp (of a version that knows {type}):

```
llama-cli -m model.gguf
```

The {num_layers} 1-bit layers are blocks of {type}, {bits:g} bits a weight with their scales: {why}. Read back, every
weight is the trained one bit for bit. llama.cpp rounds activations to 8 bits in blocks of 32, where training rounded a
token at a time, so its logits differ by that rounding.

{schemes}{notes}
{facts}"""


def gguf_card(manifest: Manifest, facts: dict[str, Any], choice: Choice) -> str:
    """Return the text of the card; `facts` are those of the export's record."""
    return _CARD.format(
        head=card_head(manifest, "gguf", tags=("gguf", "llama.cpp")),
        base_model=manifest.base_model,
        type=" and ".join(name.upper() for name in choice.names),
        num_layers=len(manifest.layers),
        bits=round(choice.bits_per_weight, 4),
        why=choice.why,
        schemes=scheme_lines(manifest.layers),
        notes="".join(f"- {note}\n" for note in facts["notes"]),
        facts=fact_lines({"recipe": manifest.recipe, **manifest.facts}),
    )
