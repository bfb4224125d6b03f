r"""Text of anyone as a terminal may show it: what would steer the terminal, or hide, is written out.

An answer, a loaded chat or a file name may hold ESC (colours, the window's title, the clipboard of some terminals), a
carriage return that overwrites the line, C1 controls that terminals take for ESC, and marks that turn the direction of
writing round. Each becomes its escape, `\x1b`: every character for itself, so a text may come in pieces.
"""

from __future__ import annotations

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
_TURNING = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]  # the direction of writing
_HIDING = [0x2028, 0x2029, 0xFEFF, *range(0xE0000, 0xE0080)]  # line breaks of their own; letters that nobody sees
_HALVES = range(0xD800, 0xE000)  # no characters: no encoding has them
_KEPT = map(ord, "\n\t")


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_TABLE = {code: _escape(code) for code in (*_CONTROLS, *_TURNING, *_HIDING, *_HALVES)}
for _code in _KEPT:
    del _TABLE[_code]


def shown(text: str) -> str:
    """Return the text with all of that written out; line breaks and tabs stay."""
    return text.translate(_TABLE)


def in_line(text: str, most: int = 200) -> str:
    """Return the text for a place inside a line: no line break either, and of a long one the beginning."""
    short = text if len(text) <= most else f"{text[:most]}..."
    return shown(short.replace("\n", "\\n").replace("\t", "\\t"))
