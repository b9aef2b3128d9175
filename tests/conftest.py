"""What the tests of several rooms stand on: a real kernel and set, an embedded cloud, the program itself."""

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from uecwatchd.cli import main
from uecwatchd.demo.material import Kernel, RealSet, kernel, make_set
from uecwatchd.demo.show import CONFIGURATION
from uecwatchd.monitor import Event, Kind, Progress
from uecwatchd.sandbox.server import Sandbox

# Longer than anything here takes on a busy machine; only so that a hang is a failure and not a hang.
PROGRAM_SECONDS = 120


def open_way(folder: Path) -> None:
    """Let every user into a folder and those above it, as far as they were made for these tests."""
    root = Path(tempfile.gettempdir())
    for each in (folder, *folder.parents):
        if each == root or root not in each.parents:
            return
        each.chmod(0o755)


@pytest.fixture(scope="session")
def real_kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    """Debian's cloud kernel, installed here or fetched from Debian once."""
    return kernel(tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="session")
def real_set(real_kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> RealSet:
    """A bootable set named `tiny`: kernel, initrd and ext4 partition image. To be copied, not changed."""
    return make_set(tmp_path_factory.mktemp("set"), kernel=real_kernel)


@pytest.fixture
def embedded_cloud(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "cloud") as cloud:
        yield cloud


NOBODY = 65534
# Imports first: the interpreter may lie where only root can read.
AS_NOBODY = """
import os, sys, encodings.idna, encodings.utf_8_sig, uecwatchd.cli
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(uecwatchd.cli.main(sys.argv[1:]))
"""


class Nursery:
    """The process that forks a run of the program for whoever asks. Ends with the tests."""

    def __init__(self) -> None:
        self._asker, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            script = str(Path(__file__).with_name("nursery.py"))
            self._process = subprocess.Popen(
                [sys.executable, script], stdin=theirs, stdout=subprocess.DEVNULL
            )

    def run(self, arguments: Sequence[str], *, environ: Mapping[str, str]) -> "CompletedProcess[str]":
        request = json.dumps({"argv": arguments, "environ": environ, "cwd": str(Path.cwd())}).encode()
        answer, theirs = socket.socketpair()
        answer.settimeout(PROGRAM_SECONDS)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as talk, answer:
            with theirs:
                descriptors = [out.fileno(), talk.fileno(), theirs.fileno()]
                socket.send_fds(self._asker, [request], descriptors)
            status = _wait_status(answer)
            out.seek(0)
            talk.seek(0)
            code = os.waitstatus_to_exitcode(status)
            return CompletedProcess(list(arguments), code, out.read(), talk.read())

    def close(self) -> None:
        self._asker.close()
        self._process.wait(PROGRAM_SECONDS)


def _wait_status(answer: socket.socket) -> int:
    with answer.makefile() as lines:
        child = int(lines.readline())
        try:
            return int(lines.readline())
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            raise


@functools.cache
def nursery() -> Nursery:
    made = Nursery()
    atexit.register(made.close)
    return made


@dataclass(frozen=True)
class Host:
    """A build host: a spool folder, a state directory, a configuration, and the program to run on them."""

    folder: Path
    spool: Path
    state: Path
    config: Path
    cloud: Sandbox

    @classmethod
    def made(cls, folder: Path, cloud: Sandbox) -> "Host":
        host = cls(folder, folder / "spool", folder / "state", folder / "uecwatchd.toml", cloud)
        host.spool.mkdir(parents=True)
        host.configure(
            CONFIGURATION.format(spool=host.spool, state=host.state, eucarc=cloud.eucarc, settle=0.3)
        )
        return host

    def configure(self, text: str) -> None:
        self.config.write_text(text)

    def run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> "CompletedProcess[str]":
        """Run `uecwatchd` as a user would; its output as text."""
        return nursery().run(
            arguments, environ={**os.environ, "UECWATCHD_CONFIG": str(self.config), **(environ or {})}
        )

    def ask(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Run a verb in this process, where a new one would take a second: its data, and its talk."""
        with redirect_stdout(StringIO()) as data, redirect_stderr(StringIO()) as talk:
            ended = main([*arguments, "--config", str(self.config)])
        assert ended == code, talk.getvalue()
        return data.getvalue(), talk.getvalue()

    def run_as_nobody(
        self, *arguments: str, spool_mode: int = 0o777, closed: Path | None = None
    ) -> "CompletedProcess[str]":
        """Run `uecwatchd` as a user without rights of its own, to whom spool, state and keys are open."""
        open_way(self.folder)
        open_way(self.cloud.folder)
        self.spool.chmod(spool_mode)
        self.state.mkdir(exist_ok=True)
        os.chown(self.state, NOBODY, NOBODY)
        for key in self.cloud.folder.rglob("*"):
            if key.is_file():
                key.chmod(0o600 if key == closed else 0o644)
        return subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *arguments],
            env={**os.environ, "UECWATCHD_CONFIG": str(self.config), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PROGRAM_SECONDS,
        )

    def popen(self, *arguments: str, environ: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "uecwatchd", *arguments],
            env={**os.environ, "UECWATCHD_CONFIG": str(self.config), **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def drop(self, *files: Path, names: Sequence[str] = ()) -> None:
        """Copy files into the spool as a user would, under other names if any are given."""
        for file, name in zip(files, names or [f.name for f in files], strict=True):
            subprocess.run(["cp", "--sparse=always", "--", str(file), str(self.spool / name)], check=True)

    def report(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads((self.spool / f"{name}.uec.json").read_text())
        return found

    def outputs(self) -> list[str]:
        endings = (".uec.log", ".uec.json", ".uec.error", ".emi", ".eki", ".eri")
        return sorted(path.name for path in self.spool.iterdir() if path.name.endswith(endings))


@dataclass(frozen=True)
class Heard:
    """A monitor that remembers."""

    events: list[Event] = field(default_factory=list)
    progresses: list[Progress] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        self.events.append(event)

    def progress(self, progress: Progress) -> None:
        self.progresses.append(progress)

    def sentences(self, *kinds: Kind) -> list[str]:
        return [event.sentence for event in self.events if event.kind in kinds]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def make_host(tmp_path: Path, embedded_cloud: Sandbox) -> Callable[..., Host]:
    """Makes build hosts of the embedded cloud, each in a folder of its name."""
    return lambda name="host": Host.made(tmp_path / name, embedded_cloud)


@pytest.fixture(scope="session")
def host_class() -> type[Host]:
    """For fixtures of a wider scope than one test."""
    return Host


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    return make_host()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB, to be filled. Needs root, as installing the tests' packages did."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[Path]:
    """A file system behind which stands a process: NTFS, by way of ntfs-3g."""
    if not Path("/dev/fuse").exists() or not shutil.which("ntfs-3g"):
        pytest.skip("there is no FUSE here")
    image, folder = tmp_path / "ntfs", tmp_path / "fuse"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ntfs", "-F", "-q", str(image)], check=True, capture_output=True)
    if subprocess.run(["ntfs-3g", str(image), str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("FUSE may not be used here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[None]:
    """The test runs as a user without rights of its own on `tmp_path`, which it can still reach."""
    open_way(tmp_path)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
