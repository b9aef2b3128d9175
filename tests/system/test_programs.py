"""Programs are run without a shell, in an environment of their own, and end when they must."""

import os
from pathlib import Path

import pytest

from tests.support.waiting import until
from uecwatchd.errors import Deferred
from uecwatchd.system.programs import Program, run_program

SHELL = Program("sh", "dash", time_out_seconds=60, environment={"TZ": "UTC0"})


def test_a_program_sees_a_minimal_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    said = run_program(Program("env", "coreutils", 60, {"TZ": "UTC0"}), [], folder=tmp_path)
    values = dict(line.split("=", 1) for line in said.splitlines())
    assert values.pop("PATH").startswith(os.environ["PATH"])
    assert values == {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LC_ALL": "C", "TZ": "UTC0"}


def test_a_program_runs_in_its_folder_with_empty_input(tmp_path: Path) -> None:
    assert run_program(SHELL, ["-c", "cat && pwd"], folder=tmp_path) == f"{tmp_path}\n"


def test_a_missing_program_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(
        Deferred, match=r"no-such: this program is not installed.*apt-get install its-package"
    ):
        run_program(Program("no-such", "its-package", 60), [], folder=tmp_path)


def test_a_program_that_fails_is_quoted_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(Deferred) as failed:
        run_program(SHELL, ["-c", "echo one >&2; printf 'disk \\033full\\n' >&2; exit 3"], folder=tmp_path)
    assert failed.value.why == "it failed with exit code 3: disk \\x1bfull"


def test_a_program_that_was_killed_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Deferred, match="killed by signal 9"):
        run_program(SHELL, ["-c", "kill -9 $$"], folder=tmp_path)


def test_a_file_that_the_kernel_cannot_start_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").write_bytes(b"\x7fELF")
    (tmp_path / "broken").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Deferred, match="it cannot be started: Exec format error"):
        run_program(Program("broken", "none", 60), [], folder=tmp_path)


def test_a_program_that_takes_too_long_ends_with_those_it_started(tmp_path: Path) -> None:
    slow = Program("sh", "dash", time_out_seconds=1)
    with pytest.raises(Deferred, match="it was not done after 1 s"):
        run_program(slow, ["-c", "sleep 1000 & echo $! > child; wait"], folder=tmp_path)
    child = (tmp_path / "child").read_text().strip()
    until(lambda: is_gone(child), "the child to end")


def is_gone(pid: str) -> bool:
    """Return True for a process that has ended, also if nobody has waited for it."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
