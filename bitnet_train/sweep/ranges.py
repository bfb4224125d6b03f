"""What a sweep tries for a key, as it is written on the command line.

    optimizer.lr=1e-4..1e-2         any number between, evenly in the logarithm: the ends are two decades apart
    schedule.warmup_fraction=0..0.2 any number between, evenly
    trainer.batch_rows=log:2..32    whole numbers for a key of whole numbers; `log:` and `linear:` say how
    optimizer.lr=1e-4..1e-2/5       five points between, ends included: what a grid needs of a key of any number
    weight.planes=1,2,3             these; also choices of a group, `weight=binary_row,ternary_row`, and lists

A comma inside brackets or quotes separates no choices, and `..` only stands between numbers: a path may have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from bitnet_train.errors import ConfigError

DECADES_OF_LOG = 2  # ends so many powers of ten apart are evenly tried in the logarithm
MOST_POINTS = 1000
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"(?:(log|linear):)?({_NUMBER})\.\.({_NUMBER})(?:/(\d+))?")
_MEANT = re.compile(rf"^(?:log|linear):|{_NUMBER}\.\.|\.\.{_NUMBER}")
_OPEN, _CLOSED, _QUOTES = "[{(", "]})", "'\""
Value = float | int | str


@dataclass(frozen=True)
class Range:
    """The values of one key: `choices` as texts, or all between `low` and `high`, of which a grid takes `points`."""

    key: str
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = False
    points: int | None = None

    @property
    def is_named(self) -> bool:
        """Whether its values are texts, without order."""
        return bool(self.choices)

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that must be possible before anything is tried: the ends, or all choices."""
        return self.choices or (self._value(self.low), self._value(self.high))

    def word(self, value: Value) -> str:
        """Return a value as a word of the command line."""
        return f"{self.key}={value if isinstance(value, str) else repr(value)}"

    def grid(self) -> tuple[Value, ...]:
        """Return the values that a grid tries. Raises ConfigError where there is no end of them."""
        if self.is_named:
            return self.choices
        if self.points is None and self.is_whole and self.high - self.low < MOST_POINTS:
            return tuple(range(int(self.low), int(self.high) + 1))
        if self.points is None:
            raise ConfigError(
                f"`{self.key}={self.text}`: a grid needs points. Write how many, ends included, "
                f"`{self.key}={self.text}/5`, or name them, `{self.key}=A,B,C`."
            )
        shares = (at / (self.points - 1) for at in range(self.points))
        return tuple(dict.fromkeys(self._value(self._between(share)) for share in shares))

    def described(self) -> str:
        """Say in a few words what is tried."""
        if self.is_named:
            return f"one of {', '.join(self.choices)}"
        kind = "whole numbers" if self.is_whole else "numbers"
        count = "" if self.points is None else f"{self.points} "
        low, high = self.ends
        return f"{count}{kind} from {low} to {high}{', evenly in the logarithm' if self.is_log else ''}"

    def _between(self, share: float) -> float:
        if share in (0.0, 1.0):
            return (self.low, self.high)[int(share)]
        return self.low * (self.high / self.low) ** share if self.is_log else self.low + share * (self.high - self.low)

    def _value(self, number: float) -> Value:
        return round(number) if self.is_whole else float(f"{number:.12g}")


def is_range(kind: str, text: str) -> bool:
    """Whether the text after `KEY=` asks for several values, rightly written or not; `kind` as for `read_range`."""
    return len(parts(text)) > 1 or (_is_number(kind) and bool(_MEANT.search(text)))


def parts(text: str) -> list[str]:
    """Return what commas outside of brackets and quotes separate."""
    found, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            found.append("")
            continue
        found[-1] += letter
        if quote or letter in _QUOTES:
            quote = "" if letter == quote else quote or letter
        else:
            depth += (letter in _OPEN) - (letter in _CLOSED)
    return found


def read_range(key: str, kind: str, text: str) -> Range:
    """Return the range that a word asks for.

    kind: the type of the key as `show --keys` names it (`int | None`), or "group". Raises ConfigError for ends that are
    no range, or choices that are none.
    """
    said = f"`{key}={text}`"
    if len(named := parts(text)) > 1:
        return Range(key, text, _choices(said, named))
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"{said} is no range. Write `LOW..HIGH`, `log:LOW..HIGH`, `LOW..HIGH/POINTS`, or choices, `A,B,C`."
        )
    how, low_text, high_text, points = found.groups()
    assert _is_number(kind), "of another key this is one value"
    is_whole = kind.removesuffix(" | None") == "int"
    low, high = float(low_text), float(high_text)
    if is_whole and not (low.is_integer() and high.is_integer()):
        raise ConfigError(f"{said}: this key takes whole numbers, so both ends must be whole.")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{said}: the first end must be below the second.")
    is_log = how == "log" or (how is None and low > 0 and high / low >= 10**DECADES_OF_LOG)
    if is_log and low <= 0:
        raise ConfigError(f"{said}: a logarithm needs ends above 0. Write `linear:`, or begin above 0.")
    if points is not None and not 2 <= int(points) <= MOST_POINTS:
        raise ConfigError(f"{said}: a range has between 2 and {MOST_POINTS} points, both ends among them.")
    return Range(key, text, (), low, high, is_log, is_whole, None if points is None else int(points))


def grid(ranges: Sequence[Range]) -> Iterator[dict[str, Value]]:
    """Yield every point of a grid, the last key fastest. Raises ConfigError where there are too many."""
    values = [each.grid() for each in ranges]
    count = math.prod(map(len, values))
    if count > MOST_POINTS:
        raise ConfigError(
            f"This grid has {count:,} points, and {MOST_POINTS:,} is the most. Name fewer values, or let "
            "`sweep.sampler=tpe` choose."
        )
    keys = [each.key for each in ranges]
    yield from (dict(zip(keys, point, strict=True)) for point in product(*values))


def _is_number(kind: str) -> bool:
    return kind.removesuffix(" | None") in ("int", "float", "Any")


def _choices(said: str, named: list[str]) -> tuple[str, ...]:
    choices = [choice.strip() for choice in named]
    if "" in choices:
        raise ConfigError(f"{said}: a choice is empty. A value that has a comma in it is quoted: `'a, b'`.")
    twice = next((choice for choice in choices if choices.count(choice) > 1), None)
    if twice is not None:
        raise ConfigError(f"{said} names `{twice}` twice. Name each choice once.")
    return tuple(choices)
