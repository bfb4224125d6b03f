"""The report of `evaluate`, from facts alone: every figure is in it, and no text of a model breaks out of it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.errors import DiskError
from bitnet_train.report.bars import render_bars
from bitnet_train.report.document import Bar, Bars
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.report.html import render_html
from bitnet_train.report.lines import spoken
from bitnet_train.report.markdown import render_markdown
from bitnet_train.report.overview import document
from bitnet_train.report.write import write_report

NASTY = "<script>alert('x')</script> ``` | & </pre>\n```python"
VOID = {"meta"}
SUBJECT = f"mine {NASTY}"
SPEED = {
    "tokens_per_s": 123.4,
    "ms_per_token": 8.1,
    "prompt_tokens_per_s": 900.0,
    "num_prompt_tokens": 9,
    "num_new_tokens": 64,
    "repeats": 3,
}


def score(perplexity: float) -> dict[str, Any]:
    names = ("nats", "accuracy", "confidence", "overconfidence", "calibration_error", "entropy")
    return {"perplexity": perplexity, "tokens": 5000, **dict.fromkeys(names, 0.25)}


def facts(*, with_teacher: bool = True) -> EvaluateFacts:
    return EvaluateFacts.from_dict(json.loads(json.dumps(on_disk(with_teacher=with_teacher))))


def on_disk(*, with_teacher: bool = True) -> dict[str, Any]:
    def both(value: Any) -> Any:
        return value if with_teacher else None

    buckets = [
        {"name": name, "types": 10, "tokens": 100, "student": 0.2, "teacher": both(0.4), "retention": both(0.5)}
        for name in ("frequent", "common", "uncommon", "rare")
    ]
    text = {
        "name": "wiki.test",
        "window_tokens": 2048,
        "window_overlap": False,
        "held_out": False,
        "student": score(84.125),
        "teacher": both(score(26.5)),
        "perplexity_ratio": both(3.1745),
        "kl": both(0.8125),
        "top1_agreement": both(0.7125),
        "confidence_skew": both(-0.05),
        "buckets": buckets,
    }
    accuracy = {"acc": 0.4, "acc_stderr": 0.05, "acc_norm": 0.5, "acc_norm_stderr": None}
    choice = {"name": "arc", "questions": 20, "chance": 0.25, "student": accuracy, "teacher": both(accuracy)}
    kept = dict.fromkeys(("retention", "retention_norm", "above_chance_retention", "above_chance_retention_norm"), 0.75)
    figures = {"tokens": 40, "characters": 99, "ended": True, "repetition": 0.125, "seconds": 1.5, "parses": True}
    roles = ["student", "teacher"] if with_teacher else ["student"]
    turn = {
        "name": NASTY,
        "prompt": NASTY,
        "reference": NASTY,
        "answers": {role: {"text": f"{role} {NASTY}", "figures": figures} for role in roles},
    }
    prompts = {
        "name": "HumanEval",
        "kind": "code",
        "student": figures,
        **({"teacher": figures} if with_teacher else {}),
        "agreement": both({"common_prefix_tokens": 3.5, "common_prefix_share": 0.5, "rouge_l": 0.3, "token_f1": 0.4}),
        "turns": [turn],
    }
    return {
        "against": both({"source": "tiny", "description": "LlamaForCausalLM"}),
        "not_compared": None if with_teacher else "`evaluate.against=none`.",
        "texts": [text],
        "choices": [{**choice, **(kept if with_teacher else {})}],
        "prompts": [prompts, {"name": "mt", "kind": "chat", "skipped": "the model has no chat template"}],
        "decode": SPEED,
    }


class Tags(HTMLParser):
    """Checks that tags close in order and keeps what the page asks for from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("with_teacher", [True, False])
def test_the_page_is_whole_needs_nothing_else_and_runs_nothing(with_teacher: bool) -> None:
    page = render_html(document(facts(with_teacher=with_teacher), SUBJECT))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.outside == []
    assert "script" not in tags.seen
    assert "http" not in page
    assert "&lt;script&gt;alert" in page
    assert {"svg", "table", "pre", "details"} <= tags.seen


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_every_figure_is_in_the_report(render: Any) -> None:
    text = render(document(facts(), SUBJECT))
    for figure in ("26.50", "84.12", "3.17x", "0.812", "71.2 %", "-5.0 pp", "40.0 % ± 5.0", "75.0 %", "12.5 %", "2048"):
        assert figure in text, figure
    assert "the model has no chat template" in text
    for name in ("frequent", "rare"):
        assert name in text


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_without_a_teacher_the_report_says_why_and_shows_dashes(render: Any) -> None:
    text = render(document(facts(with_teacher=False), SUBJECT))
    assert "Not compared with another model" in text
    assert "–" in text


def test_texts_stay_inside_their_markdown_fence() -> None:
    lines = render_markdown(document(facts(), SUBJECT)).splitlines()
    fences = [line for line in lines if line.startswith("````")]
    assert len(fences) == 2 * 4, "prompt, two texts and the reference, each opened and closed by a longer fence"
    assert not any(line.startswith("#") and "<script>" in line for line in lines), "a title is escaped"


def test_bars_are_drawn_to_one_scale_and_unknown_ones_are_left_out() -> None:
    drawn = render_bars(Bars("t", ("a", "b"), (Bar("x", "", (0.2, 0.4)), Bar("y", "", (None, 0.1)))))
    widths = [float(part.split('"')[0]) for part in drawn.split('width="')[1:]]
    assert len(widths) == 3
    assert widths[1] == pytest.approx(2 * widths[0])
    assert widths[2] == pytest.approx(widths[0] / 2, abs=0.1)


def test_a_line_for_the_terminal_says_what_was_measured() -> None:
    made = facts()
    assert spoken(made.texts[0]).startswith("wiki.test: perplexity 84.125 over 5,000 tokens, 3.17x of 26.5")
    assert spoken(made.choices[0]).startswith("arc: accuracy 40.0 % of 20 questions")
    assert spoken(made.prompts[1]) == "mt: skipped, the model has no chat template."


def test_both_files_are_written_and_can_be_made_again_from_a_facts_file(tmp_path: Path) -> None:
    paths = write_report(facts(), SUBJECT, tmp_path / "new")
    assert [Path(path).name for path in paths.values()] == ["evaluation.md", "evaluation.html"]
    assert all(Path(path).stat().st_size > 1000 for path in paths.values())


def test_a_folder_that_cannot_be_written_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"evaluation.md cannot be written: (File exists|Not a directory)"):
        write_report(facts(), SUBJECT, tmp_path / "file")
