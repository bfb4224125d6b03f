"""`bitnet-train show`: the composed configuration and where each value came from, or every key's meaning."""

from __future__ import annotations

from dataclasses import MISSING
from typing import Any

import yaml

from bitnet_train.columns import fold
from bitnet_train.config.compose import Composed, compose, to_dict
from bitnet_train.config.suggest import known_keys
from bitnet_train.train.trackers.redaction import redact
from bitnet_train.verbs import Call


def show(call: Call) -> dict[str, Any]:
    """Print the composed configuration as YAML with the origin of each value, or with `--keys` every key's meaning."""
    composed = compose(call.words[0] if call.words else None, call.overrides)
    values = redact(to_dict(composed.config))
    if not call.quiet:
        print(_keys() if call.keys else annotated_yaml(composed, values))
    if call.keys:
        return {"keys": {name: _key_facts(name) for name in known_keys()}}
    return {"config": values, "origins": composed.origins, "choices": composed.choices, "notes": composed.notes}


def annotated_yaml(composed: Composed, values: dict[str, Any]) -> str:
    """Return YAML that parses to `values`, each line with the file its value came from."""
    lines = [f"# note: {note}" for note in composed.notes]
    return "\n".join(lines + _yaml_lines(values, "", composed.origins))


def _yaml_lines(values: dict[str, Any], prefix: str, origins: dict[str, str]) -> list[str]:
    lines: list[str] = []
    indent = "  " * prefix.count(".")
    for name, value in values.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict) and full not in known_keys():
            lines += [f"{indent}{name}:", *_yaml_lines(value, f"{full}.", origins)]
        else:
            origin = f"  # {origins[full]}" if full in origins else ""
            lines.append(f"{indent}{name}: {_one_line(value)}{origin}")
    return lines


def _one_line(value: Any) -> str:
    return yaml.safe_dump([value], default_flow_style=True, width=10**6, allow_unicode=True).strip()[1:-1]


def _keys() -> str:
    rows = []
    for name in known_keys():
        facts = _key_facts(name)
        choices = f" [{', '.join(facts['choices'])}]" if facts["choices"] else ""
        default = fold(f"{name}: {_one_line(facts['default'])}", 4, first=0)
        allowed = f" [{facts['range']}]" if facts["range"] else ""
        meaning = fold(f"{facts['type']}: {facts['doc']}{choices}{allowed}", 4)
        rows.append(f"{default}\n{meaning}")
    return "\n".join(rows)


def _key_facts(name: str) -> dict[str, Any]:
    field = known_keys()[name]
    default = field.default_factory() if field.default is MISSING and callable(field.default_factory) else field.default
    allowed = field.metadata["range"]
    return {
        "type": str(field.type),
        "default": default,
        "doc": field.metadata["doc"],
        "choices": list(field.metadata["choices"]),
        "range": "" if allowed.is_open else str(allowed),
    }
