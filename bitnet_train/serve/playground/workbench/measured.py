"""The float model's predictions on a text, kept for the next question, and a choice of layers beside them.

Scales are fitted to weights and to what inputs are worth on another text (`sensitivity.importance`): those of weights
alone cut off the few that meet huge inputs, and then several planes are hardly better than one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

from bitnet_train.errors import DataError
from bitnet_train.evaluate.batches import Batch, batches, evaluation_mode, logits_of, vocabulary_of
from bitnet_train.evaluate.windows import windows
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.sensitivity.importance import listening
from bitnet_train.sensitivity.in_place import InPlace
from bitnet_train.sensitivity.reference import Fidelity, Reference
from bitnet_train.serve.playground.workbench.opened import Opened
from bitnet_train.serve.playground.workbench.task import Task
from bitnet_train.train.data.stdlib_corpus import Split, stdlib_documents

ACTIVATION = ActivationScheme()
_WINDOW = 129  # tokens of a row: 128 predictions
_DOCUMENTS, _CHARACTERS = 4, 3000  # of the texts that are there without one being given
_CALIBRATION_TOKENS = 512


class Measured:
    """One model; the predictions on the last text are kept."""

    def __init__(self, opened: Opened, text_tokens: int) -> None:
        self._opened, self._text_tokens = opened, text_tokens
        self._in_place: InPlace | None = None
        self._key, self._reference = "", None

    def reference(self, task: Task, text: str | None) -> Reference:
        """Return what the float model predicts on a text; without one on some of Python's standard library.

        Raises DataError for a text that is too short.
        """
        given = default_text() if text is None or not text.strip() else text
        key = hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()
        if self._reference is None or key != self._key:
            self._reference = None  # before the next one is made: two may be more than memory holds
            rows = self._rows(given, self._text_tokens)
            with task.interruptible():
                self._reference, self._key = Reference(self._opened.model, rows), key
        return self._reference

    def measure(self, task: Task, reference: Reference, schemes: Mapping[str, WeightScheme]) -> Fidelity:
        """Compare the model with these layers swapped to its float self; it is the same afterwards."""
        with self.swapped(task, schemes), task.interruptible():
            return reference.measure(self._opened.model)

    @contextmanager
    def swapped(self, task: Task, schemes: Mapping[str, WeightScheme], *, tell: bool = False) -> Iterator[None]:
        """Have these layers swapped in the block; `tell` says how far that is: to fit many planes takes a while."""
        in_place = self._calibrated(task)
        try:
            for index, (name, scheme) in enumerate(schemes.items()):
                task.check()
                if tell:
                    task.progress(index, len(schemes), name)
                in_place.quantize({name: scheme})
            yield
        finally:
            in_place.put_back()

    def _calibrated(self, task: Task) -> InPlace:
        if self._in_place is None:
            rows = self._rows(default_text("train"), _CALIBRATION_TOKENS)
            with (
                listening(self._opened.model, self._opened.layers) as importance,
                evaluation_mode(self._opened.model),
                task.interruptible(),
            ):
                for batch in batches(rows, vocabulary=vocabulary_of(self._opened.model)):
                    logits_of(self._opened.model, batch)
            self._in_place = InPlace(self._opened.layers, ACTIVATION, importance)
        return self._in_place

    def _rows(self, text: str, num_tokens: int) -> Batch:
        context = self._opened.context_tokens or _WINDOW
        length = max(2, min(_WINDOW, context))
        try:
            return windows(text, self._opened.tokenizer, length, max_windows=max(1, num_tokens // (length - 1)))
        except UnicodeEncodeError as error:
            raise DataError(f"`text` holds a character that is none (half of a pair): {error.reason}.") from None


def default_text(split: Split = "validation") -> str:
    """Return some of Python's standard library; the bundled model was not trained on what is held out of it."""
    return "\n\n".join(document[:_CHARACTERS] for document in islice(stdlib_documents(split), _DOCUMENTS))
