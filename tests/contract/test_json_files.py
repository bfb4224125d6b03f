"""JSON of files is read by `json_text.parse_json`; `json.loads` is for what this program, or one it started, said."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "bitnet_train"
PARSERS = {"load", "loads", "JSONDecoder"}
NO_FILES = {  # file: what it reads
    "json_text.py": "this is the reader",
    "bench/llama_cpp.py": "what llama-bench prints",
    "bench/worker.py": "what a process of ours prints, and is told",
    "config/values.py": "one escape of a text",
    "importers/gguf/metadata.py": "the state of a tokenizer in memory",
    "templates/process.py": "what a process of ours answers, bounded there",
    "templates/program.py": "what the process that started it asks",
    "train/data/token_cache.py": "the state of a tokenizer in memory",
}


def parsed(source: str) -> list[str]:
    """Return the calls of `json` that read, but for those of what `json.dumps` has just written."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    found = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in PARSERS]
    of_json = [call for call in found if ast.unparse(call.func).startswith("json.")]
    return [ast.unparse(call) for call in of_json if not (call.args and _is_dumped(call.args[0]))]


def _is_dumped(given: ast.expr) -> bool:
    return isinstance(given, ast.Call) and ast.unparse(given.func) == "json.dumps"


def test_no_file_is_read_by_the_parser_that_has_no_bound() -> None:
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    found = {name: calls for name, source in sources.items() if (calls := parsed(source))}
    assert {name: calls for name, calls in found.items() if name not in NO_FILES} == {}, "use `parse_json`"
    assert NO_FILES.keys() - found.keys() == set()
    assert [name for name, source in sources.items() if "from json import" in source] == []


def test_such_a_call_is_seen() -> None:
    assert parsed("json.load(file); json.loads(path.read_text())") == [
        "json.load(file)",
        "json.loads(path.read_text())",
    ]
    assert parsed("json.loads(json.dumps(row)); parse_json(text); torch.load(path)") == []
