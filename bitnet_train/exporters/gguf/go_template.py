"""A chat shape as a template of Go, as Ollama renders it.

Ollama gives a template `.Messages` (each with `.Role` and `.Content`, the system message first) and `.System`, and has
the functions of Go's text/template. Text outside of `{{ }}` is written as it stands; without `-` in the braces nothing
is trimmed. The token that begins a text is put there by Ollama itself, as the file says.
"""

from __future__ import annotations

from bitnet_train.exporters.gguf.chat_shape import ChatShape, Wrapped

_CONTENT = "{{ .Content }}"
_IS_PLACE = {"first": "eq $i 1", "last": "eq (len (slice $.Messages $i)) 1"}  # the system message is number 0


def go_template(shape: ChatShape) -> str:
    """Return the template."""
    branches = [("user", _user(shape)), ("assistant", _around(shape.assistant, _CONTENT))]
    if shape.place == "alone":
        branches.insert(0, ("system", _around(shape.system, _CONTENT)))
    first, *others = (f'if eq .Role "{role}" }}}}{text}' for role, text in branches)
    chosen = "".join([f"{{{{ {first}", *(f"{{{{ else {other}" for other in others), "{{ end }}"])
    over = "range $i, $_ := .Messages" if shape.place in _IS_PLACE else "range .Messages"
    return f"{_literal(shape.lead)}{{{{ {over} }}}}{chosen}{{{{ end }}}}{_literal(shape.answer)}"


def _user(shape: ChatShape) -> str:
    if shape.place not in _IS_PLACE:
        return _around(shape.user, _CONTENT)
    condition = f"if and $.System ({_IS_PLACE[shape.place]})"
    system = f"{{{{ {condition} }}}}{{{{ $.System }}}}{_literal(shape.system.after)}{{{{ end }}}}"
    return _around(shape.user, f"{system}{_CONTENT}")


def _around(wrapped: Wrapped, content: str) -> str:
    return f"{_literal(wrapped.before)}{content}{_literal(wrapped.after)}"


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')
