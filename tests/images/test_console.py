"""A console is judged by fixed patterns, and shown without what it could do to a terminal."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.clouds.instances import CONSOLE_CHARACTERS
from uecwatchd.images.console import FAILURES, judge_console, last_lines, new_text

# As kernels, ramdisks, boot loaders and getties have written them.
CONSOLES = [
    pytest.param("Debian GNU/Linux 12 tiny ttyS0\r\n\r\ntiny login: ", "up", id="a getty"),
    pytest.param("tiny login: [   12.031] random: crng init done\n", "up", id="a kernel message behind it"),
    pytest.param("\x1b[0;32mtiny\x1b[0m login:\x1b[K", "up", id="colours"),
    pytest.param("Cloud-init v. 22.4.2 finished at Sat, 28 Nov 2026", "up", id="cloud-init"),
    pytest.param("Last login: Sat Nov 28 10:00:00 on ttyS0\n", "open", id="the last login of somebody"),
    pytest.param("systemd-logind: New session\nloginctl: done\n", "open", id="words that begin alike"),
    pytest.param("", "open", id="nothing"),
    pytest.param("[    0.0] Linux version 6.1.0\n", "open", id="on its way"),
    pytest.param("Kernel panic - not syncing: Attempted to kill init!", "failed", id="a panic"),
    pytest.param("VFS: Unable to mount root fs on unknown-block(0,0)", "failed", id="no root"),
    pytest.param("ALERT! /dev/vda1 does not exist.\n(initramfs) ", "failed", id="a ramdisk's shell"),
    pytest.param("error: no such partition.\ngrub> ", "failed", id="a boot loader's shell"),
    pytest.param("Synchronous Exception at 0x000000013F4D1234", "failed", id="firmware"),
    pytest.param("INFO: task init:1 blocked for more than 120 seconds.", "failed", id="a hanging task"),
    pytest.param("The operating system has halted.\n", "failed", id="a BSD that has halted"),
    pytest.param("tiny login: \n[ 90.1] Kernel panic - not syncing: oops\n", "failed", id="a panic after it"),
]


@pytest.mark.parametrize(("text", "state"), CONSOLES)
def test_a_console_is_up_failed_or_open(text: str, state: str) -> None:
    assert judge_console(text).state == state


def test_an_expected_text_is_taken_literally_and_in_place_of_a_login() -> None:
    assert judge_console("tiny login: ", expect="READY.").state == "open"
    assert judge_console("READYx", expect="READY.").state == "open"
    verdict = judge_console("boot\nREADY. [ok]\nmore", expect="READY.")
    assert (verdict.state, verdict.line) == ("up", "READY. [ok]")
    assert judge_console("READY.\nKernel panic - not syncing: x", expect="READY.").state == "failed"


def test_the_last_lines_are_printable_and_short() -> None:
    text = (
        "".join(f"line {n}\r\n\r\n" for n in range(60)) + "\x1b[2J\x1b]0;title\x07bad \u202e\x00" + "x" * 500
    )
    lines = last_lines(text)
    assert len(lines) == 40
    assert lines[0] == "line 21"
    assert lines[-1].startswith("bad \\u202e\\x00xxx")
    assert all(line.isprintable() and len(line) <= 220 for line in lines)


@pytest.mark.parametrize(
    ("before", "now", "news"),
    [
        ("", "abc", "abc"),
        ("abc", "abc", ""),
        ("abc", "abcdef", "def"),
        ("0" * 300 + "tail", "tail", "tail"),
        ("0" * 10 + "1" * 300, "1" * 250 + "new", "new"),
    ],
)
def test_new_text_is_found_also_if_the_cloud_keeps_only_the_end(before: str, now: str, news: str) -> None:
    assert new_text(before, now) == news


@pytest.mark.parametrize(
    "piece", ["cloud-init v.", "login", "\x1b]", "\x1b[1;", "blocked for more than 9", "(initramfs", "\r"]
)
def test_a_hostile_console_takes_no_long_time(piece: str) -> None:
    text = piece * (CONSOLE_CHARACTERS // len(piece))
    began = time.process_time()
    judge_console(text, expect="x")
    last_lines(text)
    assert time.process_time() - began < 2


@given(st.text())
def test_any_console_is_judged_and_shown(text: str) -> None:
    assert judge_console(text, expect="x").state in ("up", "failed", "open")
    assert all(line.isprintable() for line in last_lines(text))


def test_each_failure_is_tried() -> None:
    reasons = {judge_console(case.values[0]).why for case in CONSOLES}
    assert reasons == {"", *FAILURES}
