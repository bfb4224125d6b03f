from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from bitnet_train.train.data.stdlib_corpus import is_held_out, stdlib_documents

STDLIB = Path(sysconfig.get_paths()["stdlib"])


@pytest.fixture(scope="module")
def splits() -> dict[str, set[str]]:
    return {"train": set(stdlib_documents("train")), "validation": set(stdlib_documents("validation"))}


@pytest.mark.parametrize(
    ("module", "held_out"),
    [
        ("abc.py", False),
        ("argparse.py", False),
        ("json/decoder.py", False),
        ("opcode.py", True),
        ("email/__init__.py", True),
    ],
)
def test_the_split_of_a_module_is_fixed_for_good(module: str, held_out: bool) -> None:
    assert is_held_out(module) is held_out


def test_about_one_module_in_twenty_is_held_out() -> None:
    names = [f"package/module_{number}.py" for number in range(2000)]
    assert 70 < sum(map(is_held_out, names)) < 135


def test_the_splits_share_no_text_and_hold_the_modules_of_their_side(splits: dict[str, set[str]]) -> None:
    train, validation = splits["train"], splits["validation"]
    assert not train & validation
    text = (STDLIB / "argparse.py").read_text(encoding="utf-8", errors="ignore")
    assert text in (validation if is_held_out("argparse.py") else train)
    assert len(train) > 10 * len(validation) > 100


def test_the_order_is_the_same_every_time() -> None:
    assert list(stdlib_documents("validation")) == list(stdlib_documents("validation"))


def test_regression_tests_come_only_when_asked_for(splits: dict[str, set[str]]) -> None:
    if not (STDLIB / "test" / "test_abc.py").exists():
        pytest.skip("this Python ships without its regression tests")
    assert splits["validation"] < set(stdlib_documents("validation", include_tests=True))


def test_generated_tables_and_installed_packages_are_left_out(splits: dict[str, set[str]]) -> None:
    texts = splits["train"] | splits["validation"]
    left_out = [STDLIB / "pydoc_data" / "topics.py", *sorted((STDLIB / "encodings").glob("cp*.py"))[:3]]
    assert not {path.read_text(encoding="utf-8", errors="ignore") for path in left_out if path.exists()} & texts
