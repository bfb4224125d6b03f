"""The head of a model card: what the hub reads of it, written by the hub's own library. Made from facts alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from bitnet_train.packed.manifest import Manifest
from bitnet_train.word_as_path import is_there, path_of

LICENCE_FACT = "license"
"""The fact of a manifest that holds the licence of the original, as the hub spells it."""
_HUB_ID = re.compile(r"[\w.\-]+/[\w.\-]+", re.ASCII)


def card_head(manifest: Manifest, library: str, tags: Sequence[str] = ()) -> str:
    """Return the YAML block that a card begins with: library, tags, and the original with its licence where known.

    The hub takes one of its own ids for the original, so a model that came from a folder has none.
    """
    schemes = sorted({layer.scheme.name for layer in manifest.layers})
    licence = manifest.facts.get(LICENCE_FACT)
    data = ModelCardData(
        library_name=library,
        base_model=manifest.base_model if _is_hub_id(manifest.base_model) else None,
        license=licence if isinstance(licence, str) else None,
        pipeline_tag="text-generation",
        tags=["1-bit", "bitnet", "bitnet-train", *schemes, *tags],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def with_results(card: str, name: str, results: Sequence[EvalResult]) -> str:
    """Return a card whose head has the results of a model called `name` too."""
    if not results:
        return card
    made = ModelCard(card, ignore_metadata_errors=True)
    made.data["model_name"], made.data["eval_results"] = name, list(results)
    return str(made)


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and not is_there(path_of(name))
