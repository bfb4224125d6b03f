"""The native runtime as a `timing.Runner`. A file of its own, for it must not bring torch into the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitnet_train.runtime.native.model import NativeModel


class NativeRunner:
    """A native model that forgets what it knows of a prompt before it computes it."""

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self.vocab_size, self.max_tokens = model.architecture.sizes.vocab, model.max_tokens

    def run(self, prompt_ids: Sequence[int], new_tokens: int, on_token: Callable[[int], object]) -> None:
        """See `timing.Runner`."""
        self._model.forget()
        self._model.generate_ids(prompt_ids, new_tokens, stop_ids=(), on_token=on_token)


def load_native(source: str, num_threads: int, *, verify: bool = True) -> NativeRunner:
    """Load a packed folder, its hashes checked, as a user does."""
    return NativeRunner(NativeModel.load(source, num_threads=num_threads, verify=verify))
