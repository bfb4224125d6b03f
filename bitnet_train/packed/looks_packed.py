"""Whether a folder is a packed one, damaged or not: other programs write files called `manifest.json` too."""

from __future__ import annotations

from pathlib import Path

from bitnet_train.json_text import parse_json
from bitnet_train.packed.manifest import FORMAT
from bitnet_train.packed.names import CONFIG_NAME, MANIFEST_NAME, WEIGHTS_NAME
from bitnet_train.word_as_path import is_file

_LAYOUTS = FORMAT.partition("_")[0]  # of any version


def looks_packed(folder: Path) -> bool:
    """Tell whether the manifest of `folder` is one of ours: by what it says, or by what lies beside it."""
    if not is_file(folder / MANIFEST_NAME):
        return False
    is_ours = _layout(folder).startswith(_LAYOUTS) or (folder / WEIGHTS_NAME).is_file()
    return is_ours or not (folder / CONFIG_NAME).is_file()


def _layout(folder: Path) -> str:
    try:
        content = parse_json((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(content.get("format", "")) if isinstance(content, dict) else ""
