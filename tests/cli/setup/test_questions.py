"""A person who does not answer the questions of `setup` ends it, and nothing is changed."""

import os
import signal

import pytest

from tests.support.host import Host
from tests.support.terminal import Terminal, on_terminal
from uecwatchd.cli.setup.answers import EUCARC, QUESTIONS
from uecwatchd.cli.setup.host_facts import drop_in_path
from uecwatchd.cli.unit.systemd import DEFAULT_NAME

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or drop_in_path(DEFAULT_NAME).exists(), reason="only root of a fresh host is asked"
)
END_OF_INPUT = "\x04"  # Ctrl-D
SETUP = ("setup", "--dry-run")


def ended_with_a_sentence(terminal: Terminal) -> bool:
    words = ("uecwatchd: setup: a question got no answer", "uecwatchd setup --help")
    return terminal.await_end() == 78 and all(word in terminal.text for word in words)


def test_the_end_of_input_at_a_question_is_no_answer(host: Host) -> None:
    with on_terminal(host, *SETUP, columns=120) as terminal:
        terminal.await_text(EUCARC)
        terminal.type(END_OF_INPUT)
        assert ended_with_a_sentence(terminal), terminal.text


def test_the_end_of_input_at_the_secret_is_no_answer(host: Host) -> None:
    with on_terminal(host, *SETUP, columns=120) as terminal:
        terminal.await_text(EUCARC)
        terminal.type("\n" * (1 + list(QUESTIONS).index("secret_key")))
        terminal.await_text(QUESTIONS["secret_key"])
        terminal.type(END_OF_INPUT)
        assert ended_with_a_sentence(terminal), terminal.text


def test_an_interrupt_at_a_question_ends_without_a_word(host: Host) -> None:
    with on_terminal(host, *SETUP, columns=120) as terminal:
        terminal.await_text(EUCARC)
        assert terminal.interrupt_until_end() == -signal.SIGINT
    assert "uecwatchd:" not in terminal.text
    assert "Traceback" not in terminal.text
