"""`uecwatchd console`: the console of an installation, shown, followed, and typed on."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.build_worker import HandWorker
from tests.support.host import Host
from tests.support.waiting import until
from uecwatchd.cli.console import PlainText, SerialLine
from uecwatchd.install.request import CONSOLE, CONSOLE_SOCKET, VNC_SOCKET
from uecwatchd.ledger.records import SetBuild, SetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.system.signals import Stop
from uecwatchd.types import SetId

KEY = "0123456789abcdef" * 2


@pytest.fixture
def builds(host: Host) -> Path:
    folder = host.folder / "builds"
    (folder / KEY).mkdir(parents=True)
    (folder / "queue").mkdir()
    with host.config.open("a") as config:
        config.write(f'\n[install]\nbuilds = "{folder}"\n')
    with closing(open_ledger(host.state)) as ledger:
        build = SetBuild(KEY, (), "running")
        ledger.put_set(SetRecord(SetId(str(host.spool), "web"), "s", "waiting", 1.0, build=build))
        ledger.put_set(SetRecord(SetId(str(host.spool), "plain"), "s", "waiting", 1.0))
    return folder


@pytest.fixture
def worker(builds: Path) -> HandWorker:
    return HandWorker(builds, builds)


def test_it_shows_the_console_to_its_end_and_says_how_that_was(host: Host, worker: HandWorker) -> None:
    worker.run(KEY, "Partitioning", "\x1b[1mInstalling\x1b[0m")
    worker.fail(KEY)
    data, talk = host.ask("console", "web", code=65)
    assert data == "Partitioning\nInstalling\n"
    assert "web: the installation has failed: no login came. Look at the console." in talk


def test_a_set_that_is_not_installed_has_no_console(host: Host, builds: Path) -> None:
    assert builds.exists()
    _, talk = host.ask("console", "plain", code=65)
    assert "plain: its system is not installed here" in talk
    _, talk = host.ask("console", "nothing", code=66)
    assert "nothing: there is no history of it" in talk


def test_the_screen_is_a_socket_while_a_machine_runs(host: Host, builds: Path, worker: HandWorker) -> None:
    worker.run(KEY)
    _, talk = host.ask("console", "web", "--vnc", code=75)
    assert "web: there is no screen: no machine of it runs at the moment" in talk
    with listening(builds / KEY / VNC_SOCKET):
        data, talk = host.ask("console", "web", "--vnc")
    assert data == f"{builds / KEY / VNC_SOCKET}\n"
    assert "vncviewer" in talk


@contextmanager
def listening(place: Path) -> Iterator[socket.socket]:
    folder = os.open(place.parent, os.O_RDONLY)  # a path of a socket has 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{place.name}")
        os.close(folder)
        server.listen(1)
        yield server
    place.unlink()


def test_what_is_typed_goes_to_each_machine_in_turn(tmp_path: Path) -> None:
    keyboard, typing = os.pipe()
    shown, stop, over = list[bytes](), Stop(), threading.Event()
    line = SerialLine(tmp_path, keyboard)
    reader = threading.Thread(target=line.follow, args=(over.is_set, shown.append, stop))
    with listening(tmp_path / CONSOLE_SOCKET) as first:
        reader.start()
        machine, _ = first.accept()
        (tmp_path / CONSOLE).write_bytes(b"boot: ")
        machine.sendall(b"boot: ")  # the same as in the log
        until(lambda: b"".join(shown) == b"boot: ", "the prompt")
        os.write(typing, b"install\n")
        assert machine.recv(100) == b"install\n"
        machine.close()
    with listening(tmp_path / CONSOLE_SOCKET) as second:
        machine, _ = second.accept()
        os.write(typing, b"root\n\x1dnot this")
        assert machine.recv(100) == b"root\n"
    reader.join()
    line.close()
    machine.close()
    assert b"".join(shown) == b"boot: ", "shown once"
    os.close(keyboard)
    os.close(typing)


def test_a_prompt_is_shown_before_its_line_ends(capfd: pytest.CaptureFixture[str]) -> None:
    text = PlainText()
    text.show(b"one\r\nlogin: ")
    assert capfd.readouterr().out == "one\nlogin: "
    text.show(b"root\r\nPassword\x1b[")
    text.show(b"0m:")
    text.end()
    assert capfd.readouterr().out == "root\nPassword:\n"
