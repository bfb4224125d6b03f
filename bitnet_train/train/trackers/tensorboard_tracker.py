"""TensorBoard: one folder of events over all resumes, with hyperparameters beside the figures that a run came to.

TensorBoard takes the hyperparameters of a run, and the names of the figures that its table shows beside them, from the
first event that has any, and the values of those figures from their newest scalars. So the names are written once, when
the run is new, and each value when it is known; `SummaryWriter.add_hparams` would write a run of its own each time.

Where a run goes back to an earlier step, what lies after it is marked as left behind, which TensorBoard then hides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from bitnet_train.train.trackers.flat import flat
from bitnet_train.train.trackers.panels import in_summary, panels
from bitnet_train.train.trackers.told import Told
from bitnet_train.train.trackers.tracker import Artefact, Figure, Line, Status, TrackedRun, Tracker

FOLDER = "tensorboard"
OF_A_RUN = ("val/ce", "val/perplexity", "val/kl", "train/loss", "speed/tokens_per_s")
SUMMARISED = (
    *("perplexity_ratio", "perplexity", "perplexity_original", "kl", "top1_agreement", "size_bytes", "original_bytes"),
    *("decode_tokens_per_s", "train_tokens_per_s", "passed"),
)


class TensorBoardTracker(Tracker):
    """Event files in the run directory."""

    def __init__(self, run: TrackedRun, told: Told) -> None:
        after = None if run.rewound_to is None else run.rewound_to + 1
        self._writer = SummaryWriter(str(run.run_dir / FOLDER), purge_step=after)
        self._is_new = told.is_new

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write the hyperparameters, and which figures stand beside them, of a new run."""
        if not self._is_new:
            return
        values = {name: value if isinstance(value, int | float | str) else str(value) for name, value in flat(config)}
        shown = dict.fromkeys([*OF_A_RUN, *in_summary(dict.fromkeys(SUMMARISED, 0.0))], 0.0)
        file = self._writer._get_file_writer()  # as `SummaryWriter.add_hparams` and Lightning do
        for summary in hparams(values, shown)[:2]:
            file.add_summary(summary)

    def log(self, lines: Sequence[Line]) -> None:
        """Write scalars."""
        for step, figures in lines:
            for name, value in panels(figures).items():
                self._writer.add_scalar(name, value, step)

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Write a text under the beginning of its prompt."""
        self._writer.add_text(f"samples/{' '.join(prompt.split())[:60]}", _quoted(prompt, text), step)

    def summarise(self, figures: Mapping[str, Figure], step: int) -> None:
        """Write numbers as scalars of the last step, and words as a table of text."""
        numbers = {name: float(value) for name, value in figures.items() if not isinstance(value, str)}
        words = {name: value for name, value in figures.items() if isinstance(value, str)}
        for name, value in in_summary(numbers).items():
            self._writer.add_scalar(name, value, step)
        for name, value in in_summary(words).items():
            self._writer.add_text(name, value, step)

    def keep(self, artefact: Artefact) -> None:
        """Write where it lies, as text."""
        rows = {"place": artefact.place, "made from": artefact.made_from or "", **artefact.facts}
        lines = [f"| {name} | {value} |" for name, value in rows.items()]
        self._writer.add_text(f"artefacts/{artefact.name}", "\n".join(["| | |", "|-|-|", *lines]))

    def save(self) -> None:
        """Write out what is buffered."""
        self._writer.flush()

    def finish(self, status: Status) -> None:
        """Close the event file."""
        self._writer.close()


def _quoted(prompt: str, text: str) -> str:
    """Return a prompt and its continuation as Markdown that shows them as they are."""
    return "\n".join(f"    {line}" for line in f"{prompt}{text}".split("\n"))
