from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bitnet_train.process import Process, this_process

on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="starts of processes are read from /proc")


def test_this_process_lives_and_one_that_was_waited_for_does_not() -> None:
    assert this_process().lives
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not replace(this_process(), pid=process.pid).lives
    assert not Process(this_process().host, process.pid).lives


@on_linux
def test_an_id_that_is_used_again_is_another_process() -> None:
    own = this_process()
    assert own.start
    assert not replace(own, start="0" * len(own.start)).lives
    assert replace(own, start="").lives


@on_linux
def test_a_child_is_another_process_of_the_same_machine() -> None:
    code = "from bitnet_train.process import this_process; print(this_process().start); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout is not None
        named = Process(this_process().host, child.pid, child.stdout.readline().strip())
        assert named.lives
        child.communicate("\n")
    assert not named.lives


@on_linux
def test_a_process_that_ended_and_was_not_waited_for_does_not_live() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and its id is still taken
    assert not Process(this_process().host, child).lives
    os.waitpid(child, 0)


def test_of_another_machine_nothing_is_known() -> None:
    elsewhere = Process("elsewhere", 1, "0")
    assert elsewhere.lives
    assert not elsewhere.is_here
