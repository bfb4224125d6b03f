"""F41 and F42: exports that were cut off, and exports that were damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitnet_train.exporters.registry import EXPORTERS
from tests.faults.commands import Warm
from tests.faults.injected import Signal
from tests.faults.runs import EXPORTING, PACKING, copy_of, exporting, files_of, left_over

FORMATS = ("packed", *EXPORTERS)
BEFORE_CONFIG = {  # folders that are whole without their record: cut off earlier, weights written and config.json not
    "packed": PACKING,
    "hf_bitnet": "bitnet_train.exporters.hf_bitnet:write_config",
    "plain": "bitnet_train.exporters.plain:write_config",
}


def place(run_dir: Path, name: str) -> Path:
    """Return the folder that a format is written into."""
    if name == "packed":
        return run_dir / "artefact"
    return run_dir / "exports" / ("gguf-auto" if name == "gguf" else name)


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_is_killed_leaves_nothing_under_its_name_and_the_next_one_clears_it_away(
    name: str, warm: Warm, packed: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(packed, tmp_path)
    before, moment = files_of(run_dir), BEFORE_CONFIG.get(name, EXPORTING)
    words = exporting(run_dir, name)
    done = warm.run(tmp_path, *words, faults=(Signal(moment, "SIGKILL"),))
    assert done.code == -9
    half = left_over(run_dir)[0]
    assert before.items() <= files_of(run_dir).items(), "what was there is whole"
    refused = warm.run(tmp_path, "validate", run_dir / half)
    assert refused.code in (1, 2), refused.said
    assert warm.run(tmp_path, *words).code == 0
    assert left_over(run_dir) == []


@pytest.fixture(scope="module")
def exported(warm: Warm, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a packed run with every export; tests copy it."""
    run_dir = copy_of(packed, tmp_path_factory.mktemp("exported"))
    first, *others = EXPORTERS
    done = warm.run(run_dir.parent, "export", run_dir, f"export={first}", f"export.also=[{','.join(others)}]")
    assert done.code == 0, done.err
    return run_dir


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_export_fails_to_validate_and_the_tensor_is_named(
    name: str, warm: Warm, exported: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(exported, tmp_path)
    folder = place(run_dir, name)
    largest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    against = () if name == "packed" else (f"validate.against={run_dir / 'artefact'}",)
    done = warm.run(tmp_path, "validate", folder, *against)
    assert done.code == 1, done.said
    assert largest.name in done.said
    assert "model.layers." in done.said or "embed_tokens" in done.said or "lm_head" in done.said


def test_an_export_that_was_cut_fails_to_validate_and_the_file_is_named(
    warm: Warm, exported: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(exported, tmp_path)
    weights = run_dir / "artefact" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    done = warm.run(tmp_path, "validate", run_dir)
    assert done.code == 1, done.said
    assert weights.name in done.said
    assert "unexpected" not in done.said
