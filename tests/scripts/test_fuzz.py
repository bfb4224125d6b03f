"""A share of every fuzz target in every run, over the table; the whole campaign is `python -m scripts.fuzz --all`."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.fuzz import codecs, hand_made, hostile, watch
from scripts.fuzz.__main__ import main
from scripts.fuzz.campaign import run_target
from scripts.fuzz.targets import TARGETS

pytest.importorskip("gguf", exc_type=ImportError)

SOUND_ONLY = ("gguf_round_trip", "kernels", "chats")  # whose cases are all sound: what must come of them is known


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_share_of_every_target_finds_no_defect(name):
    target = TARGETS[name]
    tally = run_target(name, range(target.in_tests))
    assert tally.defects == []
    assert (tally.refused == 0) == (name in SOUND_ONLY), "most damage must do harm"
    assert tally.count == target.in_tests


def test_every_run_of_the_tests_sees_two_thousand_bad_inputs():
    assert sum(target.in_tests for name, target in TARGETS.items() if name not in SOUND_ONLY) >= 2000


def test_what_is_made_by_hand_is_tried_in_every_run():
    assert len(hand_made.REFUSED) >= 40
    assert TARGETS["gguf_check"].in_tests > len(hand_made.REFUSED) + len(hand_made.SHORT)
    assert len(hostile.NAMES) == len(set(hostile.NAMES)) >= 60
    assert TARGETS["hostile_targets"].in_tests == TARGETS["hostile_targets"].count == len(hostile.NAMES)
    assert TARGETS["codecs"].in_tests > len(codecs.CODECS)


@pytest.mark.parametrize("name", ["gguf_check", "rows", "codecs", "checkpoints"])
def test_a_case_is_repeated_by_its_number(name, tmp_path):
    first, second = (TARGETS[name].make(_new(tmp_path / str(time))) for time in range(2))
    numbers = range(300, 320)
    outcomes = [[attempt(random.Random(f"3-{number}"), number) for number in numbers] for attempt in (first, second)]
    assert outcomes[0] == outcomes[1]


def test_what_goes_wrong_is_a_defect_with_its_number_and_ends_the_command_with_1(monkeypatch, capsys):
    known = codecs.CODECS["q8_0"]
    broken = codecs.Codec(known.write, lambda *data: 0 * known.read(*data), known.codes, "0" * 64, known.step)
    monkeypatch.setattr(codecs, "CODECS", {"q8_0": broken})
    tally = run_target("codecs", range(12))
    assert tally.defects[0][0] == 0
    assert "other bytes than ever before" in tally.defects[0][1]
    assert tally.count == 12
    monkeypatch.setattr(sys, "argv", ["fuzz", "codecs", "--count", "1"])
    assert main() == 1
    assert "`python -m scripts.fuzz codecs --first 0 --count 1 --seed 0`" in capsys.readouterr().out


def test_a_case_that_is_slow_every_time_is_a_defect():
    tally = run_target("codecs", range(3), slack=0.0)
    assert [number for number, _ in tally.defects] == [0, 1, 2]
    assert "s of CPU" in tally.defects[0][1]


def test_processes_that_are_started_and_files_elsewhere_are_heard(tmp_path):
    (tmp_path / "inside").mkdir()
    with watch.audited() as events:
        subprocess.run([sys.executable, "-c", ""], check=True)
        (tmp_path / "inside" / "file").write_text("")
        (tmp_path / "outside").write_text("")
    assert any(event.startswith("subprocess.Popen") for event in watch.reached_out(events))
    elsewhere = watch.opened_outside(events, (tmp_path / "inside", Path(sys.prefix), Path("/dev")))
    assert str(tmp_path / "outside") in elsewhere
    assert str(tmp_path / "inside" / "file") not in elsewhere
    with watch.audited() as later:
        pass
    assert later == []


@pytest.mark.skipif(sys.platform != "linux", reason="inotify and /proc are Linux's")
def test_a_bait_tells_who_opened_it_and_memory_ends(tmp_path):
    file = tmp_path / "bait"
    file.write_text("x")
    bait = watch.Bait(file)
    assert not bait.was_opened()
    subprocess.run(["cat", str(file)], check=True, capture_output=True)
    assert bait.was_opened()
    assert not bait.was_opened()
    with watch.little_memory(), pytest.raises(MemoryError):
        bytearray(2 * watch.LARGEST_BYTES)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
