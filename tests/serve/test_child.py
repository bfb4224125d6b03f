"""Real processes of this Python; the module that they run is written for each test."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.process import Process
from bitnet_train.serve.child import Child, ChildGone, Limits

ECHO = """
from bitnet_train.serve.child import begin, hear, say
argument = begin()
print("a print of a library")
for message in hear():
    say({**argument, **message})
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a module that `python -m` finds, and return its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str, name: str = "a_child_of_a_test") -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


async def said(child: Child) -> list[dict[str, Any]]:
    return [message async for message in child]


def test_messages_go_both_ways_and_prints_go_to_the_log(program: Any, tmp_path: Path) -> None:
    async def talk() -> tuple[dict[str, Any], int | None]:
        child = await Child.start(program(ECHO), {"name": "tiny"}, log=tmp_path / "log")
        messages = aiter(child)
        await child.send({"text": "hé\n\u2028" * 50_000})
        heard = await anext(messages)
        await child.stop()
        return heard, child.returncode

    heard, status = asyncio.run(talk())
    assert heard == {"name": "tiny", "text": "hé\n\u2028" * 50_000}
    assert status == 0
    assert (tmp_path / "log").read_text() == "a print of a library\n"


def test_one_that_is_killed_says_so_and_cannot_be_asked(program: Any) -> None:
    async def talk() -> str:
        child = await Child.start(program(ECHO), {})
        os.kill(child.pid, signal.SIGKILL)
        assert await said(child) == []
        with pytest.raises(ChildGone, match="it was ended by SIGKILL"):
            await child.send({"text": "x" * (1 << 20)})
        return child.reason

    assert asyncio.run(talk()) == "it was ended by SIGKILL"


@pytest.mark.parametrize("line", ["no json", "[1]", "[" * 5000, '{"a": 1'])
def test_one_that_says_what_is_no_message_is_ended(program: Any, line: str) -> None:
    start = "import time\nfrom bitnet_train.serve import child\nchild.begin()\n"
    text = f"{start}child._voice.say({line.encode()!r} + b'\\n')\ntime.sleep(600)\n"

    async def talk() -> tuple[list[dict[str, Any]], str]:
        child = await Child.start(program(text), {})
        return await said(child), child.reason

    assert asyncio.run(talk()) == ([], "it was ended, for it said what is no message")


def test_its_memory_is_limited(program: Any) -> None:
    text = (
        "from bitnet_train.serve.child import begin, say\nbegin()\n"
        "try:\n    bytearray(2 << 30)\nexcept MemoryError:\n    say({'refused': True})\n"
    )

    async def talk() -> list[dict[str, Any]]:
        return await said(await Child.start(program(text), {}, Limits(memory_bytes=1 << 30)))

    assert asyncio.run(talk()) == [{"refused": True}]


def test_its_computing_is_limited(program: Any) -> None:
    text = "from bitnet_train.serve.child import begin\nbegin()\nwhile True: pass\n"

    async def talk() -> str:
        child = await Child.start(program(text), {}, Limits(cpu_seconds=1))
        assert await said(child) == []
        return child.reason

    assert asyncio.run(talk()) == "it was ended by SIGXCPU"


def test_stopping_ends_one_that_does_not_listen(program: Any) -> None:
    text = (
        "import signal, time\nfrom bitnet_train.serve.child import begin, say\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nbegin()\nsay({})\ntime.sleep(600)\n"
    )

    async def talk() -> str:
        child = await Child.start(program(text), {})
        await anext(aiter(child))
        await child.stop(grace_seconds=0.1)
        return child.reason

    assert asyncio.run(talk()) == "it was ended by SIGKILL"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux'")
def test_it_ends_with_its_parent_even_while_it_computes(program: Any, tmp_path: Path) -> None:
    text = "from bitnet_train.serve.child import begin, say\nbegin()\nsay({})\nwhile True: pass\n"
    parent = (
        "import asyncio, sys, time\nfrom bitnet_train.serve.child import Child\n"
        "async def main():\n"
        f"    child = await Child.start({program(text)!r}, {{}})\n"
        "    await anext(aiter(child))\n    print(child.pid, flush=True)\n    time.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 30
    while Process(os.uname().nodename, pid).lives and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Process(os.uname().nodename, pid).lives


def test_a_number_that_is_not_finite_is_refused_before_it_is_sent(program: Any) -> None:
    async def talk() -> None:
        child = await Child.start(program(ECHO), {})
        try:
            with pytest.raises(ValueError, match="JSON compliant"):
                await child.send({"kl": float("nan")})
        finally:
            await child.stop()

    asyncio.run(talk())
