from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bitnet_train.config.compose import compose
from bitnet_train.config.target import find_target, read_yaml
from bitnet_train.config.yaml_text import MOST_BYTES, MOST_LEVELS, MOST_NODES, check_bounds
from bitnet_train.errors import ConfigError


def bomb(doublings: int) -> str:
    lines = ["a0: &a0 [x, x]"] + [f"a{at}: &a{at} [*a{at - 1}, *a{at - 1}]" for at in range(1, doublings)]
    return "\n".join(lines)


TOO_MUCH = {
    "flow": "a: " + "[" * 20_000 + "]" * 20_000,
    "open flow": "a: " + "[" * 20_000,
    "block": "\n".join(" " * at + "a:" for at in range(MOST_LEVELS + 1)) + " 1",
    "dashes": "a:\n  " + "- " * (MOST_LEVELS + 1) + "1",
    "an alias at the bottom": "a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20,
    "values": "a: [" + "1," * MOST_NODES + "]",
    "a bomb of aliases": bomb(40),
    "merged keys": "a: &a {x: &b [" + "1," * 200 + "]}\n" + "\n".join(f"k{at}: {{<<: *a}}" for at in range(100)),
    "an alias of itself": "a: &a [*a]",
    "bytes": "a: " + "x" * MOST_BYTES,
}


@pytest.mark.parametrize("text", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_file_above_the_bounds_is_refused_by_name(text: str, tmp_path: Path) -> None:
    for name in ("own.yaml", "config.yaml"):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ConfigError, match=re.escape(str(path))) as caught:
            find_target(str(path if name == "own.yaml" else tmp_path))
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * (MOST_LEVELS - 1) + "1" + "]" * (MOST_LEVELS - 1),
        "a: [" + "1," * (MOST_NODES - 10) + "]",
        bomb(9),
        "a: &a {x: 1}\nb: {<<: *a, y: 2}",
        "a: " + "x" * (MOST_BYTES // 2),
        "",
    ],
    ids=lambda text: f"{text[:12]}{len(text)}",
)
def test_what_is_within_the_bounds_is_what_the_parser_says(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    assert read_yaml(tmp_path / "own.yaml") == (yaml.safe_load(text) or {})


def test_a_number_of_thousands_of_digits_and_a_byte_that_is_no_text_are_wrong_usage(tmp_path: Path) -> None:
    for given in (b"a: " + b"9" * 5000, b"a: \xff\xfe", b"a: \x00"):
        (tmp_path / "own.yaml").write_bytes(given)
        with pytest.raises(ConfigError, match=r"own\.yaml"):
            compose(str(tmp_path / "own.yaml"))


def test_an_endless_file_is_read_up_to_the_bound() -> None:
    with pytest.raises(ConfigError, match="at most 1 MiB"):
        read_yaml(Path("/dev/zero"))


def test_a_mistake_is_still_named_with_its_line() -> None:
    with pytest.raises(yaml.YAMLError, match="line 2"):
        check_bounds("a: 1\nb: [1", "own.yaml")
