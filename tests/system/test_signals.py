import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.support.waiting import PATIENCE_SECONDS
from uecwatchd.system.signals import handle_signals


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_each_signal_is_answered() -> None:
    answered = threading.Semaphore(0)
    handle_signals([signal.SIGUSR1], answered.release)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert answered.acquire(timeout=PATIENCE_SECONDS)


def test_a_signal_is_answered_though_the_main_thread_holds_what_the_answer_needs() -> None:
    held, answered = threading.Lock(), threading.Event()

    def act() -> None:
        with held:
            answered.set()

    handle_signals([signal.SIGUSR1], act)
    with held:
        os.kill(os.getpid(), signal.SIGUSR1)  # has been handled when this returns
        assert not answered.is_set()
    assert answered.wait(PATIENCE_SECONDS)


HANGING = """
import signal, threading
from uecwatchd.system.signals import handle_stop_signals
handle_stop_signals(lambda: None, code=75, patience=0.0, last=lambda: print("restored", flush=True))
signal.raise_signal(signal.SIGTERM)
threading.Event().wait()
"""


def test_what_hangs_after_a_request_to_stop_ends_with_a_last_action() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert (ended.returncode, ended.stdout) == (75, "restored\n"), ended.stderr
