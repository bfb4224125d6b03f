"""Render a chat template as transformers does, without transformers: Jinja2 in its immutable sandbox.

A template comes with somebody's model and is code. The sandbox keeps it from attributes that begin with an underscore
and from changing what it is given; it sees plain data only, that of JSON. What transformers adds is added here
too: `{% generation %}` (a mark for training, which renders its body), loop controls, `tojson` that escapes no HTML,
`raise_exception` and `strftime_now`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from bitnet_train.errors import DataError
from bitnet_train.runtime.messages import Messages


def render_chat(
    template: str,
    messages: Messages,
    special_tokens: Mapping[str, str],
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Return the prompt of `messages` (plain data, each with `role` and `content`), open for the assistant's answer.

    `variables` are further names that the template may read, such as `enable_thinking`.

    Raises DataError when the template is no valid one, or refuses the messages.
    """
    from jinja2 import TemplateError

    plain = [dict(message) for message in messages]
    try:
        compiled = _environment().from_string(template)
        given = {"tools": None, "documents": None, **special_tokens, **(variables or {})}
        return compiled.render(**{**given, "messages": plain, "add_generation_prompt": True})
    except (TemplateError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise DataError(f"The chat template of this model cannot be used: {error}. Leave `chat` off.") from error


def _environment() -> Any:
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}body{% endgeneration %}` renders its body in a scope of its own."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> str:
            return caller()

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)
