"""Uploads of strangers: what is refused by first bytes, names and sizes, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import bitnet_train
from bitnet_train.serve.playground.uploads import shown_name
from tests.fixtures.gguf_files import gguf_bytes
from tests.fixtures.tiny_gguf import write_tiny_gguf
from tests.serve.playground.conftest import TOKEN, Playground, serving, until

STAND_IN = """#!{python}
import json
common = {{"build_commit": "0c1e570", "model_type": "llama 4M F32"}}
rates = {{"samples_ts": [10.0, 11.0, 12.0], "avg_ts": 11.0}}
print(json.dumps([{{**common, **rates, "n_prompt": 1, "n_gen": 0}}, {{**common, **rates, "n_prompt": 0, "n_gen": 32}}]))
"""

TINY = Path(bitnet_train.__file__).parent / "assets" / "tiny"
FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


@pytest.fixture(autouse=True)
def nothing_is_left(playground: Playground) -> Iterator[None]:
    """Close what a test opened; then nothing of what was uploaded is on the disk."""
    before = {model["id"] for model in playground.state()["models"]}
    yield
    for model in playground.state()["models"]:
        if model["id"] not in before:
            playground.client.delete(f"/models/{model['id']}")
    assert uploaded(playground) == []


def uploaded(playground: Playground) -> list[Path]:
    uploads = playground.folder / "playground" / "uploads"
    return [Path(folder, name) for folder, _, names in os.walk(uploads) for name in names]


def folder(playground: Playground, files: dict[str, bytes]) -> Any:
    """Upload a folder; return the answer of the first request that was refused, or of the last."""
    announced = [{"name": name, "bytes": len(content)} for name, content in files.items()]
    answer = playground.client.post("/uploads/folder", json={"files": announced, "name": "mine"})
    if answer.status_code != 201:
        return answer
    number = answer.json()["upload"]
    for name, content in files.items():
        answer = playground.client.put(f"/uploads/{number}/{name}", content=content)
        if answer.status_code != 201:
            return answer
    return playground.client.post(f"/uploads/{number}/done")


def tiny_files(**changed: bytes) -> dict[str, bytes]:
    files = {name: (TINY / name).read_bytes() for name in FILES}
    return files | {name.replace("_safetensors", ".safetensors"): content for name, content in changed.items()}


def failed(playground: Playground, answer: Any) -> str:
    """Wait until a model has failed; return why, having seen that it names no place and that the server goes on."""
    assert answer.status_code == 201, answer.text
    model = playground.loaded(answer.json()["id"])
    assert model["status"] == "failed", model
    assert str(playground.folder) not in json.dumps(model)
    assert "uploads" not in model["error"]
    return model["error"]


@pytest.mark.slow
def test_a_folder_is_taken_file_by_file(playground: Playground) -> None:
    model = playground.loaded(folder(playground, tiny_files()).json()["id"])
    assert (model["name"], model["status"], len(model["layers"])) == ("mine", "ready", 30)
    assert str(playground.folder) not in json.dumps(playground.state())


@pytest.mark.slow
def test_a_gguf_is_taken_and_runs_in_llama_cpp_too(
    playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "llama-bench"
    tool.write_text(STAND_IN.format(python=sys.executable))
    tool.chmod(0o755)
    monkeypatch.setenv("BITNET_TRAIN_LLAMA_BENCH", str(tool))
    content = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    answer = playground.client.post("/uploads?name=small.gguf", content=content)
    model = playground.loaded(answer.json()["id"])
    assert (model["name"], model["status"], model["bytes"]) == ("small.gguf", "ready", len(content))
    assert len(model["layers"]) == 30
    job = playground.done(kind="benchmark", model=model["id"], choice={"model.layers.0.mlp.up_proj": "binary"})
    assert [row["what"] for row in job["result"]["rows"]] == [
        *("float32, torch", "1 layer swapped, native", "llama.cpp F32")
    ]
    assert job["result"]["rows"][2]["tokens_per_second"] == pytest.approx(11)


def test_weights_that_are_no_numbers_are_refused_in_words(playground: Playground, tmp_path: Path) -> None:
    tensors = load_with_nan(tmp_path / "nan.safetensors")
    error = failed(playground, folder(playground, tiny_files(model_safetensors=tensors)))
    assert "not finite" in error
    assert "mine" in error


def load_with_nan(path: Path) -> bytes:
    from safetensors.torch import load_file, save_file

    tensors = load_file(TINY / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    return path.read_bytes()


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"config.json": b"{}", "../evil.safetensors": b""}, 400),
        ({"config.json": b"{}", "/etc/evil.safetensors": b""}, 400),
        ({"config.json": b"{}", "..": b"", "a.safetensors": b""}, 400),
        ({"config.json": b"{}", "a\\b.safetensors": b""}, 400),
        ({"config.json": b"{}", "model.safetensors\0": b""}, 400),
        ({"config.json": b"{}", "pytorch_model.bin": b"", "a.safetensors": b""}, 400),
        ({"config.json": b"{}", "modeling_evil.py": b"", "a.safetensors": b""}, 400),
        ({"config.json": b"{}", ".hidden.safetensors": b""}, 400),
        ({"config.json": b"{}", "adapter_config.json": b"{}", "a.safetensors": b""}, 400),
        ({"config.json": b"{}"}, 400),
        ({"model.safetensors": b"{}"}, 400),
        ({"config.json": b"{}", "a.safetensors": b"not one" * 9}, 415),
        ({"config.json": b"{}", "a.safetensors": struct.pack("<Q", 1 << 60) + b"{" * 99}, 415),
        ({"config.json": b"{}", "a.safetensors": struct.pack("<Q", 90) + b"{}"}, 415),
        ({"config.json": b"{}", "a.safetensors": b"12"}, 415),
    ],
)
def test_a_folder_with_what_it_may_not_have_is_refused(
    playground: Playground, files: dict[str, bytes], status: int
) -> None:
    assert folder(playground, files).status_code == status
    forget(playground)


def forget(playground: Playground) -> None:
    """Begin so many folders that those of before are forgotten, and finish none: they hold no file."""
    for _ in range(4):
        body = {"files": [{"name": "config.json", "bytes": 2}, {"name": "a.safetensors", "bytes": 20}]}
        assert playground.client.post("/uploads/folder", json=body).status_code == 201


def test_a_file_has_the_bytes_that_were_announced(playground: Playground) -> None:
    body = {"files": [{"name": "config.json", "bytes": 10}, {"name": "a.safetensors", "bytes": 20}]}
    number = playground.client.post("/uploads/folder", json=body).json()["upload"]
    place = f"/uploads/{number}"
    assert playground.client.put(f"{place}/config.json", content=b"x" * 11).status_code == 413
    assert playground.client.put(f"{place}/config.json", content=b"x" * 9).status_code == 400
    assert playground.client.put(f"{place}/config.json", content=b"x" * 10).status_code == 201
    assert playground.client.put(f"{place}/config.json", content=b"y" * 10).status_code == 409
    assert playground.client.put(f"{place}/tokenizer.json", content=b"{}").status_code == 400
    assert playground.client.put(f"{place}/..%2f..%2fconfig.json", content=b"{}").status_code in (400, 404)
    assert playground.client.post(f"{place}/done").status_code == 409
    forget(playground)


@pytest.mark.parametrize("announced", [10**15, 1 << 62])
def test_a_folder_that_is_too_large_is_refused_before_it_comes(playground: Playground, announced: int) -> None:
    body = {"files": [{"name": "config.json", "bytes": 2}, {"name": "a.safetensors", "bytes": announced}]}
    assert playground.client.post("/uploads/folder", json=body).status_code == 413


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04" + b"\0" * 99, b"\x89PNG", b"gguf" * 9])
def test_a_file_that_is_no_gguf_is_refused_by_its_first_bytes(playground: Playground, content: bytes) -> None:
    answer = playground.client.post("/uploads?name=a.gguf", content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "not_a_gguf")


@pytest.mark.parametrize("name", ["../../../etc/passwd", "..", "\0"])
def test_the_server_chooses_where_a_file_lies(playground: Playground, name: str) -> None:
    answer = playground.client.post("/uploads", params={"name": name}, content=b"GGUF" + b"\xff" * 60)
    failed(playground, answer)
    assert [path.name for path in uploaded(playground)] == ["model.gguf"]
    assert answer.json()["name"] not in ("", "..")
    assert not {"/", "\\", "\0"} & set(answer.json()["name"])


BOMBS = {
    "a count of metadata without end": struct.pack("<4sIQQ", b"GGUF", 3, 1, (1 << 63) - 1),
    "a count of tensors without end": struct.pack("<4sIQQ", b"GGUF", 3, (1 << 63) - 1, 0),
    "a text without end": struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, (1 << 63) - 1),
    "an array of arrays": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + b"\1\0\0\0\0\0\0\0a\x09\0\0\0" * 50_000,
    "nothing but a head": struct.pack("<4sIQQ", b"GGUF", 3, 0, 0),
}


@pytest.mark.parametrize("bomb", BOMBS, ids=BOMBS)
def test_a_head_that_lies_fails_its_model_alone(playground: Playground, tiny: dict[str, Any], bomb: str) -> None:
    failed(playground, playground.client.post("/uploads?name=bomb.gguf", content=BOMBS[bomb]))
    playground.done(kind="swap", model=tiny["id"], choice={})


@pytest.mark.slow
def test_an_adapter_is_refused_in_words(playground: Playground) -> None:
    content = gguf_bytes({"general.type": "adapter", "general.architecture": "llama"}, {})
    assert "LoRA adapter" in failed(playground, playground.client.post("/uploads?name=lora.gguf", content=content))


def raw(playground: Playground, *lines: str, body: bytes = b"") -> bytes:
    """Send a request by hand, close our side, and return the answer."""
    head = [*lines, "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}", "", ""]
    with socket.create_connection(("127.0.0.1", playground.port), timeout=20) as asked:
        asked.sendall("\r\n".join(head).encode() + body)
        asked.shutdown(socket.SHUT_WR)
        return asked.makefile("rb").read()


def test_an_upload_that_breaks_off_is_removed(playground: Playground) -> None:
    raw(
        playground,
        "POST /playground/api/uploads?name=a.gguf HTTP/1.1",
        "Content-Length: 1000000",
        body=b"GGUF" + b"x" * 9000,
    )
    until(lambda: uploaded(playground) == [])
    assert len(playground.state()["models"]) == 1


def test_a_length_above_the_limit_is_refused_before_the_body(playground: Playground) -> None:
    answer = raw(
        playground, "POST /playground/api/uploads?name=a.gguf HTTP/1.1", f"Content-Length: {10**12}", body=b"GGUF"
    )
    assert b" 413 " in answer.splitlines()[0]


@pytest.mark.slow
def test_a_length_that_is_not_told_is_counted(tmp_path: Path) -> None:
    with serving(tmp_path, upload_mb=0.1) as small:

        def endless() -> Iterator[bytes]:
            yield b"GGUF"
            for _ in range(200):
                yield b"x" * 10_000

        with suppress(httpx.WriteError, httpx.ReadError):  # it was closed while we sent
            assert small.client.post("/uploads", content=endless()).status_code == 413
        until(lambda: uploaded(small) == [])
        assert small.state()["models"] == []


@pytest.mark.slow
def test_uploads_go_with_the_server_unless_they_are_to_be_kept(tmp_path: Path) -> None:
    for keep in (False, True):
        with serving(tmp_path, keep_uploads=keep) as server:
            answer = server.client.post("/uploads", content=b"GGUF" + b"\xff" * 60)
            assert server.loaded(answer.json()["id"])["status"] == "failed"
        assert len(uploaded(server)) == keep


def test_a_name_for_people_has_nothing_of_a_place() -> None:
    assert shown_name("C:\\a\\b.gguf", "x") == "b.gguf"
    assert shown_name("../<b>.gguf", "x") == "b.gguf"
    assert shown_name("a/..", "x") == shown_name("", "x") == "x"
    assert len(shown_name("a" * 999, "x")) == 80
