"""Long verbs show a bar on a terminal while they work, leave none behind, and show nothing in a pipe."""

import random
import signal
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.spool_files import drop_image
from tests.support.terminal import WITHOUT_RICH, on_terminal

BAR = "━"


@pytest.fixture
def image(host: Host) -> Path:
    """An image in the spool of a host whose cloud takes its time."""
    drop_image(host.spool, "karmic", random.Random(1).randbytes(4 << 20))  # noqa: S311
    return host.spool / "karmic.img"


def run(host: Host, *arguments: str) -> str:
    """Run a verb on a terminal that must have had a bar, and has none at the end; return its last screen."""
    with on_terminal(host, *arguments) as terminal:
        assert terminal.await_end() == 0, terminal.text
    assert BAR.encode() in terminal.written
    assert BAR not in terminal.text
    return terminal.text


def test_a_long_verb_has_a_bar_that_is_gone_at_its_end(host: Host, image: Path, tmp_path: Path) -> None:
    assert "Bundled karmic.img" in run(host, "bundle", "--keep", str(image), str(tmp_path / "b"))
    (manifest,) = (tmp_path / "b").glob("*.manifest.xml")
    run(host, "unbundle", str(manifest), str(tmp_path / "u"))
    assert (tmp_path / "u" / "karmic.img").read_bytes() == image.read_bytes()
    host.cloud.faults.arm("slow", 0.2)
    assert "Worked on 1: 1 done." in run(host, "once")
    assert "equals karmic.img" in run(host, "verify", "karmic")


def test_a_pipe_gets_no_progress(host: Host, image: Path, tmp_path: Path) -> None:
    bundled = host.run("bundle", "--keep", str(image), str(tmp_path / "b"))
    assert [line.split("  ")[1] for line in bundled.stderr.splitlines()] == [
        "Bundled karmic.img: 4 MiB as karmic.img"
    ]
    opened = host.run("unbundle", bundled.stdout.strip(), str(tmp_path / "u"))
    assert (opened.returncode, opened.stderr) == (0, "")
    assert host.run("once").returncode == 0
    found = host.run("verify", "karmic")
    assert (found.returncode, found.stderr) == (0, "")
    assert len(found.stdout.splitlines()) == 1


def test_without_the_library_progress_is_one_line(host: Host, image: Path, tmp_path: Path) -> None:
    words = ("bundle", "--keep", str(image), str(tmp_path / "b"))
    with on_terminal(host, *words, program=WITHOUT_RICH) as terminal:
        assert terminal.await_end() == 0
    assert b"karmic.img: bundle" in terminal.written
    assert "karmic.img: bundle" not in terminal.text
    assert BAR.encode() not in terminal.written


def test_an_interrupted_verb_leaves_no_bar_and_ends_by_the_signal(
    host: Host, image: Path, tmp_path: Path
) -> None:
    with image.open("r+b") as file:
        file.truncate(1 << 40)  # zeros, which take hours
    with on_terminal(host, "bundle", "--keep", str(image), str(tmp_path / "b")) as terminal:
        terminal.await_text("karmic.img: bundle", BAR)
        terminal.interrupt()
        assert terminal.await_end() == -signal.SIGINT
    assert "Traceback" not in terminal.text
    assert BAR not in terminal.text
    assert list((tmp_path / "b").iterdir()) == []
