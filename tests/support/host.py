"""A build host: a folder to drop into, a configuration, an embedded cloud, and the program to run on them."""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.support.cloud_keys import with_keys
from uecwatchd.cli.main import main
from uecwatchd.demo.material import RealSet
from uecwatchd.demo.run import CONFIGURATION
from uecwatchd.sandbox.server import Sandbox

# Longer than anything here takes on a busy machine, so that a hang becomes a failure.
PROGRAM_SECONDS = 120


def open_way(folder: Path) -> None:
    """Let every user into a folder and those above it, as far as they were made for these tests."""
    root = Path(tempfile.gettempdir())
    for each in (folder, *folder.parents):
        if each == root or root not in each.parents:
            return
        each.chmod(0o755)


NOBODY = 65534
# Imports first: the interpreter may be in a folder that only root can read.
AS_NOBODY = """
import locale, os, sys, encodings.idna, encodings.utf_8_sig
from uecwatchd.cli.main import main
from uecwatchd.cli.verbs import VERBS
for verb in VERBS:
    verb.load()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


class ForkServer:
    """The process that forks each run of the program, as in `fork_server.py`. It ends with the tests."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            script = str(Path(__file__).with_name("fork_server.py"))
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
                socket.send_fds(self._requests, [request], descriptors)
            status = _wait_status(answer)
            out.seek(0)
            talk.seek(0)
            code = os.waitstatus_to_exitcode(status)
            return CompletedProcess(list(arguments), code, out.read(), talk.read())

    def close(self) -> None:
        self._requests.close()
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
def fork_server() -> ForkServer:
    made = ForkServer()
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
        return fork_server().run(
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
        """Run `uecwatchd` as a user without rights of its own, who may use spool, state and keys."""
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

    def drop_set(self, made: RealSet, name: str = "karmic") -> None:
        """Drop a disk with its kernel and ramdisk as the set of this name."""
        names = [f"{name}.{ending}" for ending in ("img", "vmlinuz", "initrd")]
        self.drop(made.machine, made.kernel, made.ramdisk, names=names)

    def report(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads((self.spool / f"{name}.uec.json").read_text())
        return found

    def outputs(self) -> list[str]:
        endings = (".uec.log", ".uec.json", ".uec.error", ".emi", ".eki", ".eri")
        return sorted(path.name for path in self.spool.iterdir() if path.name.endswith(endings))


@contextmanager
def cloud_host(folder: Path, dialect: str, *, administrator: bool = True) -> Iterator[Host]:
    """Run the embedded cloud of a generation, and make a build host whose configuration names it."""
    with Sandbox(with_keys(folder / "cloud"), dialect=dialect, administrator=administrator) as cloud:
        host = Host.made(folder / "host", cloud)
        host.configure(host.config.read_text().replace('dialect = "sandbox"', f'dialect = "{dialect}"'))
        yield host
