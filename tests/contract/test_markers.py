"""A test that needs what not every machine has carries a mark, so that `-m "not toolchain"` leaves it out."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
APART = {"contract", "fixtures", "llama_cpp"}  # those of llama_cpp are marked as a whole, by tests/conftest.py
SIGNS = {
    '"BITNET_TEST_SMOLLM2"': "real_model",
    '"BITNET_TEST_LLAMA_CPP"': "toolchain",
    '"BITNET_TEST_ONE_BIT_GGUF"': "toolchain",
    "shutil.which(": "toolchain",
}


@pytest.mark.parametrize("sign", SIGNS)
def test_files_with_a_sign_of_a_need_have_its_mark(sign: str) -> None:
    files = [path for path in TESTS.rglob("test_*.py") if path.relative_to(TESTS).parts[0] not in APART]
    needing = {path: text for path in files if sign in (text := path.read_text(encoding="utf-8"))}
    assert needing, f"no test has {sign}: is it called otherwise now?"
    assert [path.name for path, text in needing.items() if f"mark.{SIGNS[sign]}" not in text] == []
