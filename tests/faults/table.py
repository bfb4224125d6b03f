"""THE table of faults: what is done to a run, how often at least, what must come of it, and the tests that do it.

Tests that lie elsewhere are named where they do exactly this fault.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """The faults `first` to `last`; `tests` are named as pytest does, without the cases of a parametrisation."""

    first: int
    last: int
    fault: str
    times: int
    expected: str
    tests: tuple[str, ...]

    @property
    def numbers(self) -> str:
        """As pages name them: F5, or F1-F6."""
        return f"F{self.first}" if self.first == self.last else f"F{self.first}-F{self.last}"


def _here(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/faults/test_{file}.py::test_{name}" for name in names)


FAULTS = (
    Row(
        1,
        6,
        "SIGTERM at: tokenising, conversion, step 0, mid-accumulation, validation, checkpoint write",
        6,
        "saved (of the first two there is nothing), exit 143, resumed bitwise",
        _here(
            "signals",
            "sigterm_before_the_first_step_saves_nothing_and_a_resume_begins_anew",
            "sigterm_in_step_0_saves_that_step",
            "sigterm_later_saves_what_is_finished",
        ),
    ),
    Row(
        7,
        9,
        "SIGINT once; twice; during an export in any format",
        7,
        "exit 130; at once; no folder, nor a part of one",
        _here(
            "signals",
            "sigint_once_finishes_the_step_and_saves",
            "sigint_twice_quits_at_once",
            "sigint_during_an_export_leaves_no_folder",
        ),
    ),
    Row(
        10,
        13,
        "SIGKILL in a step, in an accumulation, in a validation, while a checkpoint is flushed; any number of them in",
        20,
        "newest whole checkpoint taken, resumed bitwise, what was half-written removed",
        _here(
            "killed",
            "a_killed_run_resumes_bit_for_bit",
            "a_run_that_is_killed_while_it_writes_leaves_what_the_next_start_removes",
        ),
    ),
)
