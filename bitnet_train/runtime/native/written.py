"""Token ids to text while they come: whole characters only, and nothing of a stop string.

A token may be part of a character, and a stop string may begin in one token and end in another. So text is held back
in two places: until its last character is complete, and for as long as its end could still become a stop string.

    ids  ->  decode since the last whole character  ->  piece  ->  hold back a possible stop  ->  text for the reader

Decoding starts at the tokens of the piece before, because some tokenizers treat the first token of a text differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitnet_train.errors import DataError

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Written:
    """The text of one continuation, growing. `pieces` joined are `text`; none contains or begins a stop string.

    `decode` returns the text of token ids; `receive` is called with every piece that is certain.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        receive: Callable[[str], object] | None = None,
    ) -> None:
        if not all(stop):
            raise DataError("A stop string is empty, so every text ends with it. Leave it out (`generate.stop`).")
        self._decode, self._stop, self._receive = decode, tuple(stop), receive
        self._ids: list[int] = []
        self._from, self._to = 0, 0  # decoding starts at _from; the text of the tokens before _to is out
        self._held = ""
        self.stopped = False
        self.text = ""

    def push(self, token_id: int) -> bool:
        """Take one more token; True when a stop string is complete, and then the text is final."""
        if not self.stopped:
            self._ids.append(token_id)
            self._take(self._new_text())
        return self.stopped

    def finish(self) -> str:
        """Let go of what was held back and return the whole text."""
        if not self.stopped:
            self._take(self._new_text(unfinished=True))
            self._emit(self._held)
            self._held = ""
        return self.text

    def _new_text(self, *, unfinished: bool = False) -> str:
        known = self._decode(self._ids[self._from : self._to])
        text = self._decode(self._ids[self._from :])
        if len(text) <= len(known) or (text.endswith(_UNFINISHED) and not unfinished):
            return ""
        self._from, self._to = self._to, len(self._ids)
        return text[len(known) :]

    def _take(self, piece: str) -> None:
        self._held += piece
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._emit(self._held[: min(found)])
            self._held = ""
            return
        keep = _possible_stop(self._held, self._stop)
        self._emit(self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]

    def _emit(self, piece: str) -> None:
        self.text += piece
        if piece and self._receive is not None:
            self._receive(piece)


def _possible_stop(text: str, stop: Sequence[str]) -> int:
    """Return how many characters at the end of `text` are the beginning of a stop string."""
    longest = max((len(word) - 1 for word in stop), default=0)
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(word.startswith(text[-n:]) for word in stop)), 0)
