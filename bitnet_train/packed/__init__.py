"""THE folder that this package writes: manifest, planes, scales, tables. One reader and one writer.

Names arrive on first use: reading a folder needs no torch, writing one does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitnet_train.packed.manifest import LayerEntry, Manifest, Sizes, TableEntry, TensorEntry
    from bitnet_train.packed.reader import open_weights, read_manifest, verify_files
    from bitnet_train.packed.sizes import LayerSize, render_sizes, size_report
    from bitnet_train.packed.writer import export_packed

__all__ = [
    "LayerEntry",
    "LayerSize",
    "Manifest",
    "Sizes",
    "TableEntry",
    "TensorEntry",
    "export_packed",
    "open_weights",
    "read_manifest",
    "render_sizes",
    "size_report",
    "verify_files",
]

_HOMES = {
    "manifest": ("LayerEntry", "Manifest", "Sizes", "TableEntry", "TensorEntry"),
    "writer": ("export_packed",),
    "reader": ("open_weights", "read_manifest", "verify_files"),
    "sizes": ("LayerSize", "render_sizes", "size_report"),
}


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}.")
