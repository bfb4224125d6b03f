"""The process that renders chat templates, as it runs: a line of JSON in, a line of JSON out, until the input ends.

    first line      {"path": [...], "seconds": 10, "bytes": 2^30}      where modules lie; limits
    then            [key, source or null, [names, ...]]                source once for each key
    answer          [{"text": ...} or {"error": ...}, ...]             one for each set of names

A template comes with somebody's model and is code. Jinja's immutable sandbox keeps it from attributes that begin with
an underscore and from changing what it is given, and it sees plain data only. It does not keep it from ten nested loops
or 10 GB of text: no count of steps covers every filter and every method of a text. So the kernel ends this process when
one rendering has used its seconds of computing, whatever else the machine does meanwhile, and refuses it more memory.

What transformers adds to Jinja is added here too: `{% generation %}` (a mark for training, which renders its body),
loop controls, `tojson` that escapes no HTML, `raise_exception`, `strftime_now`, a `namespace` without `_names`.
"""

from __future__ import annotations

import json
import signal
import sys
from datetime import datetime
from typing import Any, NoReturn


def main() -> None:
    """Answer line after line."""
    limits = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = limits["path"]
    environment = make_environment()
    _bound_memory(limits["bytes"])
    sources: dict[str, str] = {}
    compiled: dict[str, Any] = {}
    for line in sys.stdin.buffer:
        key, source, many = json.loads(line)
        if source is not None:
            sources[key] = source
        answers = []
        for names in many:
            _bound_seconds(limits["seconds"])
            answers.append(_answer(key, names, environment, sources, compiled))
        _bound_seconds(0)
        sys.stdout.buffer.write(json.dumps(answers).encode() + b"\n")
        sys.stdout.buffer.flush()


def _answer(
    key: str, names: dict[str, Any], environment: Any, sources: dict[str, str], compiled: dict[str, Any]
) -> dict[str, str]:
    try:
        if key not in compiled:
            compiled[key] = environment.from_string(sources[key])
        return {"text": compiled[key].render(**names)}
    except Exception as error:  # of any kind: Jinja, its filters and their authors raise what they like
        return {"error": f"{error}"[:2000] or type(error).__name__}


def _bound_seconds(seconds: float) -> None:
    """End this process after so many seconds of computing from now; 0 = never."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _bound_memory(num_bytes: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
    except (ImportError, OSError, ValueError):  # Windows; macOS, which refuses
        pass


def make_environment() -> Any:
    """Return the sandbox that transformers renders chat templates in."""
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
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "namespace": _namespace(),
    }
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _namespace() -> Any:
    from jinja2.exceptions import SecurityError
    from jinja2.utils import Namespace

    class Names(Namespace):
        """A namespace whose names do not begin with an underscore."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise SecurityError(f"a namespace has no name that begins with an underscore, such as {name!r}")
            super().__setitem__(name, value)

    return Names


if __name__ == "__main__":
    main()
