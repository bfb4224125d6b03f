"""Exported folders of tiny trained models, and an attacker who repairs every hash."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from bitnet_train.exporters import export_packed
from bitnet_train.exporters.contents import describe_tensor
from bitnet_train.exporters.manifest import seal, sha256_of
from bitnet_train.exporters.narrow import hashable
from bitnet_train.formats.planes import unpack_planes


@pytest.fixture(scope="session")
def trained(make_trained):
    return make_trained()


@pytest.fixture(scope="session")
def exported(trained, byte_tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    export_packed(trained, byte_tokenizer, folder, {})
    return folder


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """Return a copy of the exported folder that a test may damage."""
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.fixture
def tamper() -> Callable[[Path, Callable[[dict[str, Tensor]], object]], None]:
    """Change tensors of a folder and make every hash in its manifest fit again."""

    def change_and_reseal(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
        weights = folder / "weights.safetensors"
        tensors = load_file(weights)
        change(tensors)
        save_file(tensors, weights, metadata={"format": "pt"})
        body = json.loads((folder / "manifest.json").read_text())
        body.pop("manifest_sha256")
        for name, tensor in tensors.items():
            body["tensors"][name]["sha256"] = describe_tensor(tensor).sha256
        for layer in body["layers"]:
            planes, scale = (tensors[f"{layer['name']}.{part}"] for part in ("planes", "scale"))
            layer["codes_sha256"] = sha256_of(hashable(unpack_planes(planes, layer["num_inputs"], "binary")))
            layer["scale_sha256"] = sha256_of(hashable(scale))
        data = weights.read_bytes()
        entry = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        body["files"]["weights.safetensors"] = entry
        (folder / "manifest.json").write_text(seal(body))

    return change_and_reseal
