"""F30 and F31: text that changed within one training, caches that were damaged, text with nothing to learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import Warm
from tests.faults.injected import Raise, Signal
from tests.faults.runs import BEGUN, STEP, STEPS, WORDS, copy_of, resumes_to, steps_of

NEVER = Raise(STEP, 0)  # of a run that must not come so far


def chat(answer: str, **further: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer, **further}]
    return {"messages": turns}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_damaged_token_cache_is_made_again_with_a_message(
    warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    (cache,) = (run_dir / "cache").glob("tokens-*")
    made = cache.read_bytes()
    damaged = made[:-1] + bytes([made[-1] ^ 1])
    cache.write_bytes(damaged)
    done = resumes_to(whole, warm, run_dir)
    assert f"The token cache {cache} is damaged" in done.said
    assert "text is not the one" not in done.said
    assert len(cache.read_bytes()) == len(made)
    assert cache.read_bytes() != damaged


def test_a_run_whose_text_was_changed_does_not_go_on_without_a_word(warm: Warm, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [chat(f"It is {number}.") for number in range(40)])
    words = (*WORDS, "data=chat_files", f"data.path={path}", "run.dir=run", "--quiet")
    stop = Signal(STEP, number=BEGUN)
    assert warm.run(tmp_path, *words, faults=(stop,)).code == 143
    write(path, [chat(f"It was {number}.") for number in range(40)])
    done = warm.run(tmp_path, "train", "run", "--quiet")
    assert done.code == 0, done.err
    assert "warning: the text is not the one that the steps so far were trained on" in done.said
    assert f"The run goes on with it, from step {BEGUN} on" in done.said
    assert steps_of(tmp_path / "run")[-1] == STEPS


LONG = "word " * 400


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no row with content"),
        ([chat("Yes.")], "1 example(s) cannot be split"),
        ([chat(f"{LONG} {number}") for number in range(40)], "longer than `data.context_tokens=64`"),
        ([chat("Yes.", weight=0)] * 8, "rows.jsonl:1: no assistant turn to learn from"),
    ],
    ids=["empty", "one row", "all too long", "all masked"],
)
def test_text_with_nothing_to_learn_is_refused_before_training(
    rows: list[Any], said: str, warm: Warm, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.jsonl", rows)
    words = ("data=chat_files", f"data.path={path}", "run.dir=run")
    done = warm.start(tmp_path, *WORDS, *words, faults=(NEVER,)).wait(fired=False)
    assert done.code == 1, done.err
    assert said in done.said
    assert str(path) in done.said
    assert "unexpected" not in done.said
