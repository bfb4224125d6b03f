"""What a checkpoint says of itself, and how that is held against its folder; nothing heavy is imported here.

```
checkpoints/run_id                      16 hexadecimal digits, drawn when the first checkpoint is written
            step-000120/state.pt
                        manifest.json   schema 2: step, run, versions, settings, per file its bytes and SHA-256, and
                                        `seal`, the SHA-256 of all other fields
            abandoned/                  checkpoints of later steps than one that a run went back to by name
```

The seal is over the fields as JSON with sorted keys, so it holds whoever indents the file. `run` is what `run_id` says:
a checkpoint of another run is known by it. A run folder that is copied whole is the same run. Schema 1 had neither
`run` nor `seal`, and is read.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bitnet_train.errors import TrainingError
from bitnet_train.json_text import parse_json
from bitnet_train.whole import write_whole

SCHEMA, READABLE = 2, (1, 2)
STATE, MANIFEST, RUN_ID = "state.pt", "manifest.json", "run_id"
ABANDONED = "abandoned"
_FOLDER = re.compile(r"step-(\d+)")
_ID = re.compile(r"[0-9a-f]{16}")
_CHUNK_BYTES = 1 << 20


def folder_name(step: int) -> str:
    """Return the folder name of a step: `step-000120`."""
    return f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """Return the step that a checkpoint's folder name states; TrainingError for any other name."""
    match = _FOLDER.fullmatch(folder.name)
    if match is None:
        raise TrainingError(f"{folder} is not a checkpoint: its folder name is not like `step-000120`.")
    return int(match[1])


def is_checkpoint_name(name: str) -> bool:
    """Whether a folder's name is that of a checkpoint."""
    return _FOLDER.fullmatch(name) is not None


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoint folders in `directory` by ascending step, whole or not."""
    if not directory.is_dir():
        return []
    return sorted((path for path in directory.iterdir() if is_checkpoint_name(path.name)), key=step_of)


def later_than(directory: Path, step: int) -> list[Path]:
    """Return the checkpoint folders of later steps, whole or not."""
    return [folder for folder in list_checkpoints(directory) if step_of(folder) > step]


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with its seal, as JSON will have it."""
    plain = json.loads(json.dumps(manifest))
    return plain | {"seal": _seal(plain)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint without looking at its other files.

    Raises
    ------
    TrainingError
        When it is missing, cut, changed, of another step than its folder's name, or of a newer schema.
    """
    path = folder / MANIFEST
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
        schema, step = manifest["schema"], manifest["step"]
        readable = set(manifest["files"]) == {STATE} and all(
            {"bytes", "sha256"} <= set(f) for f in manifest["files"].values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"it cannot be read ({error})") from error
    if schema not in READABLE:
        raise TrainingError(
            f"{path} has schema {schema}; this version reads {' and '.join(map(str, READABLE))}. Update bitnet-train."
        )
    if not readable:
        raise damaged(path, f"it must list exactly `{STATE}` with `bytes` and `sha256`")
    if (schema > 1 or "seal" in manifest) and manifest.get("seal") != _seal(manifest):
        raise damaged(path, "its fields are not those that its seal was made of")
    if step != step_of(folder):
        raise damaged(path, f"it says step {step}, and its folder {folder.name}")
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """Check sizes and hashes of a checkpoint and return its manifest.

    Raises
    ------
    TrainingError
        When a file is missing, truncated or changed, or the manifest cannot be used (`read_manifest`): names it.
    """
    manifest = read_manifest(folder)
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise damaged(path, "it is missing")
        if path.stat().st_size != facts["bytes"]:
            raise damaged(path, f"it has {path.stat().st_size} bytes instead of {facts['bytes']}")
        if sha256_of(path) != facts["sha256"]:
            raise damaged(path, "its SHA-256 differs from the manifest's")
    return manifest


def find_latest(directory: Path, say: Callable[[str], object]) -> Path | None:
    """Return the newest whole checkpoint of the run, None where it has none at all; `say` names those passed over.

    Raises
    ------
    TrainingError
        When there are checkpoints and none can be used: to start again without a word would lose what was trained.
    """
    return _newest(directory, verify, say)


def find_readable(directory: Path) -> Path | None:
    """Return what `find_latest` does, by the manifests alone: no state is looked at."""
    return _newest(directory, read_manifest, say=str)


def _newest(directory: Path, read: Callable[[Path], dict[str, Any]], say: Callable[[str], object]) -> Path | None:
    found, faults = list_checkpoints(directory), []
    for folder in reversed(found):
        try:
            check_own(folder, directory, read(folder))
        except TrainingError as error:
            faults.append(str(error))
            say(f"Skipping a checkpoint that cannot be used. {error}")
        else:
            return folder
    if not faults:
        return None
    raise TrainingError(
        f"None of the {len(found)} checkpoints in {directory} can be used, and the run does not start again by itself. "
        "Bring a copy of one back, or train anew in another `run.dir` with `trainer.resume=never`. The newest: "
        f"{faults[0]}"
    )


def check_own(folder: Path, directory: Path, manifest: Mapping[str, Any]) -> None:
    """Raise TrainingError where a checkpoint is not one of the run whose checkpoints lie in `directory`.

    What lies in `directory` without a name of its run, as schema 1 has it, is taken for the run's own.
    """
    own, its = run_id(directory), manifest.get("run")
    lies_here = folder.resolve().parent == directory.resolve()
    if (own is not None and its == own) or (lies_here and (own is None or its is None)):
        return
    raise TrainingError(
        f"{folder} is a checkpoint of another run than that of {directory}. To train on from what it holds, merge that "
        "run and name the model (`model.source=RUN/merged`), or go on in a copy of its whole run folder."
    )


def run_id(directory: Path) -> str | None:
    """Return the name that the run of these checkpoints drew, None where it has none."""
    try:
        text = (directory / RUN_ID).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return text if _ID.fullmatch(text) else None


def own_run_id(directory: Path) -> str:
    """Return the name of a run, drawn and kept in `directory` where it has none yet. Raises OSError."""
    own = run_id(directory)
    if own is None:
        own = _named_by_newest(directory) or secrets.token_hex(8)
        write_whole(directory / RUN_ID, f"{own}\n")
    return own


def _named_by_newest(directory: Path) -> str | None:
    try:
        newest = find_readable(directory)
    except TrainingError:
        return None
    return None if newest is None else read_manifest(newest).get("run")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def damaged(path: Path, why: str) -> TrainingError:
    """Return the error for a file of a checkpoint."""
    return TrainingError(f"{path} is damaged: {why}. Use an earlier checkpoint (`trainer.resume=PATH`) or start anew.")


def _seal(manifest: Mapping[str, Any]) -> str:
    fields = {name: value for name, value in manifest.items() if name != "seal"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
