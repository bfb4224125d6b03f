from __future__ import annotations

import os
import signal
import threading

import pytest

from bitnet_train.train.loop.signals import Interrupted, SignalWatcher


def test_before_training_a_signal_ends_the_run_at_once() -> None:
    with pytest.raises(Interrupted, match="nothing to save") as caught, SignalWatcher():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143


def test_once_armed_the_first_signal_is_only_remembered() -> None:
    with SignalWatcher() as watcher:
        watcher.arm()
        os.kill(os.getpid(), signal.SIGINT)
        assert watcher.received == signal.SIGINT


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    with SignalWatcher():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == before


def test_arming_takes_over_from_handlers_set_meanwhile() -> None:
    with SignalWatcher() as watcher:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        watcher.arm()
        os.kill(os.getpid(), signal.SIGTERM)
        assert watcher.received == signal.SIGTERM


def test_outside_the_main_thread_the_watcher_is_deaf_but_works() -> None:
    failures: list[Exception] = []

    def enter() -> None:
        try:
            with SignalWatcher() as watcher:
                watcher.arm()
        except ValueError as error:  # what signal.signal raises there
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert failures == []


def test_a_second_interrupt_quits_at_once() -> None:
    child = os.fork()
    if child == 0:
        with SignalWatcher() as watcher:
            watcher.arm()
            os.kill(os.getpid(), signal.SIGINT)
            if watcher.received == signal.SIGINT:  # the first did not quit
                os.kill(os.getpid(), signal.SIGINT)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
