"""The `README.md` of a folder in another format: what it is, what it came from, how to use it; facts alone."""

from __future__ import annotations

from bitnet_train.packed.card import fact_lines, scheme_lines
from bitnet_train.packed.card_data import card_head
from bitnet_train.packed.manifest import Manifest

_CARD = """{head}
# {base_model}, {schemes_in_title}

{usage}
{schemes}
{facts}"""


def hf_card(manifest: Manifest, usage: str, *, library: str = "transformers") -> str:
    """Return the text of the card; `usage` says what this format is and how to load it, `library` with what."""
    names = sorted({layer.scheme.title for layer in manifest.layers})
    return _CARD.format(
        head=card_head(manifest, library),
        base_model=manifest.base_model,
        schemes_in_title=" and ".join(names),
        usage=usage,
        schemes=scheme_lines(manifest.layers),
        facts=fact_lines({"recipe": manifest.recipe, **manifest.facts}),
    )
