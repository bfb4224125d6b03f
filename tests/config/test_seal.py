"""A run's config.yaml that lost something is refused; one that a person edited is read, and said to be edited."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bitnet_train.config.compose import compose, to_dict, to_yaml
from bitnet_train.config.seal import fault_of, is_edited, num_keys, sealed
from bitnet_train.errors import ConfigError
from bitnet_train.run.directory import RunDirectory


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the config.yaml of a run, as a run writes it."""
    RunDirectory(tmp_path / "run").create(to_yaml(compose("quickstart", ["activation=int4"]).config))
    return tmp_path / "run" / "config.yaml"


@pytest.mark.slow
def test_what_a_run_writes_is_read_as_it_was_and_nothing_is_said(saved: Path) -> None:
    composed = compose(str(saved.parent))
    assert composed.config.activation.name == "int4"
    assert composed.notes == []
    assert not is_edited(saved.read_text())


@pytest.mark.slow
def test_wherever_it_is_cut_it_is_refused_with_the_way_out(saved: Path) -> None:
    text = saved.read_text()
    ends = [at + shift for at in range(len(text)) if text[at] == "\n" for shift in (0, 1)]
    for end in {0, 1, 40, *ends} - {len(text)}:
        cut = text[:end]
        try:
            content = yaml.safe_load(cut) or {}
        except yaml.YAMLError:
            continue  # refused as YAML
        assert not content or fault_of(cut, content) is not None, cut[-80:]
    for end in (0, text.index("\n"), text.index("trainer:"), text.index("optimizer:") + 20, len(text) - 1):
        saved.write_text(text[:end])
        with pytest.raises(ConfigError, match=r"config\.yaml.* Bring a copy of it back, .*run\.dir=.*resume=auto`"):
            compose(str(saved.parent))


@pytest.mark.parametrize("end", ["run:", "logger:", "optimizer:"])
def test_a_file_of_before_there_was_a_seal_is_read_where_it_has_its_last_section(tmp_path: Path, end: str) -> None:
    text = to_yaml(compose("quickstart").config)
    (tmp_path / "config.yaml").write_text(text)
    assert compose(str(tmp_path)).notes == []
    (tmp_path / "config.yaml").write_text(text[: text.index(end)])
    with pytest.raises(ConfigError, match="is cut short: it ends before its last section, `run`"):
        compose(str(tmp_path))


def test_an_edited_value_is_taken_and_said(saved: Path) -> None:
    saved.write_text(saved.read_text().replace("max_steps: 300", "max_steps: 301") + "# my own note\n")
    composed = compose(str(saved.parent))
    assert composed.notes == [f"{saved} was edited after its run wrote it."]


@pytest.mark.parametrize("section", ["optimizer", "run"])
def test_a_section_that_was_edited_away_is_refused(saved: Path, section: str) -> None:
    first, _, rest = saved.read_text().partition("\n")
    content = yaml.safe_load(rest)
    del content[section]
    saved.write_text(f"{first}\n{yaml.safe_dump(content, sort_keys=False)}")
    with pytest.raises(ConfigError, match=r"is cut short: it has \d+ of the \d+ keys that it was written with"):
        compose(str(saved.parent))


def test_keys_are_counted_in_their_sections_and_a_seal_is_of_every_byte() -> None:
    assert num_keys({"recipe": "x", "run": {"dir": None, "root": "runs"}, "data": {}}) == 3
    text = sealed(to_yaml(compose("quickstart").config))
    assert yaml.safe_load(text) == to_dict(compose("quickstart").config)
    for at in range(text.index("\n") + 1, len(text), 97):
        assert is_edited(text[:at] + "~" + text[at + 1 :])
