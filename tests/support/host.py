"""A build host: a folder to drop into, a configuration, an embedded cloud, and the program to run on them."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TextIO

from tests.support.cloud_keys import with_keys
from tests.support.program_runs import ROOT, Run, User, fork_server
from uecwatchd.cli.main import main
from uecwatchd.demo.material import RealSet
from uecwatchd.demo.run import CONFIGURATION
from uecwatchd.sandbox.server import Sandbox


def open_way(folder: Path) -> None:
    """Let every user into a folder and those above it, as far as they were made for these tests."""
    root = Path(tempfile.gettempdir())
    for each in (folder, *folder.parents):
        if each == root or root not in each.parents:
            return
        each.chmod(0o755)


NOBODY = 65534


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

    def run(
        self, *arguments: str, environ: Mapping[str, str] | None = None, user: User = ROOT
    ) -> "CompletedProcess[str]":
        """Run `uecwatchd` as a user would; its output as text."""
        return fork_server().run(arguments, environ=self._environ(environ), user=user)

    def _environ(self, more: Mapping[str, str] | None) -> Mapping[str, str]:
        return {**os.environ, "UECWATCHD_CONFIG": str(self.config), **(more or {})}

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
        return self.run(*arguments, user=(NOBODY, NOBODY, ()))

    def start(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        user: User = ROOT,
        stderr: TextIO | None = None,
    ) -> Run:
        """Start `uecwatchd`, with pipes for its outputs, or a file for standard error."""
        return fork_server().start(arguments, environ=self._environ(environ), user=user, stderr=stderr)

    def popen(
        self, *arguments: str, environ: Mapping[str, str] | None = None, stdin: int | None = None
    ) -> "subprocess.Popen[str]":
        """Start `uecwatchd` by an interpreter of its own, which imports everything first."""
        return subprocess.Popen(
            [sys.executable, "-m", "uecwatchd", *arguments],
            env=self._environ(environ),
            stdin=stdin,
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
