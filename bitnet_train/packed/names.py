"""What the files and the tensors of a packed folder are called. Spelled here and nowhere else; nothing is imported.

    manifest.json  weights.safetensors      the two files that make a folder a packed one
    <layer>.planes  <layer>.scale           a packed layer: its bits, its scales
    <table>.codes   <table>.scale           a table: its codes, its scales
    <table>.multipliers                     and of one in fewer than 8 bits its multipliers
    <module>.bias                           of either, the name that Hugging Face gives it too

Every other tensor keeps the name that it has in the model.
"""

from __future__ import annotations

MANIFEST_NAME = "manifest.json"
WEIGHTS_NAME = "weights.safetensors"
CONFIG_NAME = "config.json"  # Hugging Face's own: every folder of a model has one
GENERATION_NAME = "generation_config.json"  # and this one too
CONFIG_MARKS = ("quantization_config", "transformers_weights")  # what only the config of a packed folder says
NATIVE_NAME = "native.json"  # of a folder that the C++ core computes: in numbers what its config.json says in words
EXPORT_NAME = "export.json"  # beside what was written of a packed folder in another format: its record


def planes_name(layer: str) -> str:
    """Return under which name the bits of a packed layer are stored."""
    return f"{layer}.planes"


def codes_name(table: str) -> str:
    """Return under which name the codes of a table are stored."""
    return f"{table}.codes"


def multipliers_name(table: str) -> str:
    """Return under which name the multipliers of a table in fewer than 8 bits are stored."""
    return f"{table}.multipliers"


def scale_name(module: str) -> str:
    """Return under which name the scales of a packed layer or a table are stored."""
    return f"{module}.scale"


def bias_name(module: str) -> str:
    """Return under which name the bias of a packed layer or a table is stored."""
    return f"{module}.bias"


def tied_names(alias: str, table: str, bits: int) -> dict[str, str]:
    """Return alias -> stored name of the tensors of a table in so many bits that is another one's."""
    named = (codes_name, scale_name) if bits == 8 else (codes_name, multipliers_name, scale_name)
    return {name(alias): name(table) for name in named}
