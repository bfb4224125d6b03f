"""Artefacts: folders that compute, byte for byte, what was trained. Written here, used in `runtime/`."""

from bitnet_train.exporters.manifest import LayerEntry, Manifest, Sizes, TensorEntry
from bitnet_train.exporters.packed import export_packed
from bitnet_train.exporters.reader import open_weights, read_manifest, verify_files
from bitnet_train.exporters.sizes import LayerSize, render_sizes, size_report

__all__ = [
    "LayerEntry",
    "LayerSize",
    "Manifest",
    "Sizes",
    "TensorEntry",
    "export_packed",
    "open_weights",
    "read_manifest",
    "render_sizes",
    "size_report",
    "verify_files",
]
