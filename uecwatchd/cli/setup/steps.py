"""Steps of a setup: each one change of this host, with the sentence that announces it."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from grp import getgrnam
from pathlib import Path

from uecwatchd.errors import Halted, UecError
from uecwatchd.system.text import printable, shell_word

# A start waits for the first scan.
PROGRAM_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class WriteText:
    """A file to be written at once or not at all."""

    path: Path
    text: str = field(repr=False)
    mode: int = 0o644
    group: str = "root"


@dataclass(frozen=True, slots=True)
class StoreCredential:
    """A credential for systemd's store: `data` under `name`, encrypted with this host's key if it can be."""

    name: str
    path: Path
    data: bytes = field(repr=False)
    is_encrypted: bool = True


@dataclass(frozen=True, slots=True)
class RunProgram:
    """A program to be run. `may_fail` if the check at the end says more than its exit code."""

    command: tuple[str, ...]
    may_fail: bool = False


@dataclass(frozen=True, slots=True)
class RemovePath:
    """A file or a folder to be removed with all that is in it."""

    path: Path


@dataclass(frozen=True, slots=True)
class SetupStep:
    """One step: the sentence for people, and the change. Without a change it is only advice."""

    text: str
    change: WriteText | StoreCredential | RunProgram | RemovePath | None = None


class StepFailed(UecError):
    """A program of a step failed, and the service may not run now. The next steps are still useful."""

    exit_code = 78


def carry_out(change: WriteText | StoreCredential | RunProgram | RemovePath) -> None:
    """Make one change. Raises Halted, or StepFailed if `may_fail`."""
    try:
        if isinstance(change, WriteText):
            _write(change.path, change.text.encode(), mode=change.mode, group=change.group)
        elif isinstance(change, StoreCredential):
            data = encrypted(change.name, change.data) if change.is_encrypted else change.data
            change.path.parent.mkdir(mode=0o700, exist_ok=True)
            _write(change.path, data, mode=0o600, group="root")
        elif isinstance(change, RunProgram):
            _run(change)
        elif change.path.is_dir() and not change.path.is_symlink():
            shutil.rmtree(change.path)
        else:
            change.path.unlink(missing_ok=True)
            _remove_if_empty(change.path.parent)
    except OSError as error:
        raise Halted(f"{error.filename or 'setup'}", f"{error.strerror}", AGAIN) from error


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder of drop-ins that has none any more: nobody else would."""
    if folder.suffix == ".d":
        with suppress(OSError):  # there is another one
            folder.rmdir()


AGAIN = "Correct this, then repeat the command: what is done is kept."


def _write(path: Path, data: bytes, *, mode: int, group: str) -> None:
    """Replace a file; with a secret in it, it is never readable by more users than at the end."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.setup")
    made.unlink(missing_ok=True)
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchown(descriptor, 0, 0 if group == "root" else getgrnam(group).gr_gid)
        os.fchmod(descriptor, mode)
        file.flush()
        os.fsync(descriptor)
    made.replace(path)


def encrypted(name: str, data: bytes) -> bytes:
    """Encrypt a credential, so that only this host can open it, and only under this name. Raises Halted."""
    return _answer("systemd-creds", "encrypt", f"--name={name}", "-", "-", text=data)


def decrypted(name: str, path: Path) -> bytes:
    """Open an encrypted credential of this host. Raises Halted."""
    return _answer("systemd-creds", "decrypt", f"--name={name}", str(path), "-")


def _answer(*command: str, text: bytes = b"") -> bytes:
    try:
        done = subprocess.run(command, input=text, capture_output=True, check=True, timeout=PROGRAM_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise Halted(_shown(command), _why(error), AGAIN) from None
    return done.stdout


def _run(step: RunProgram) -> None:
    try:
        _answer(*step.command)
    except Halted as error:
        if step.may_fail:
            raise StepFailed(error.what, error.why, error.hint) from None
        raise


def _shown(command: Sequence[str]) -> str:
    return " ".join(map(shell_word, command))


def _why(error: Exception) -> str:
    message = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").strip()
    return printable(message.splitlines()[0] if message else str(error))
