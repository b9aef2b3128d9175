"""Abilities of a program with few rights."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.support.host import open_way
from uecwatchd.errors import Deferred
from uecwatchd.system.confined_program import run_confined
from uecwatchd.system.confinement import Limits
from uecwatchd.system.programs import Program

SHELL = Program("sh", "dash", time_out_seconds=60, environment={"GIVEN": "given"})
LIMITS = Limits(cpu_seconds=10, memory_bytes=256 << 20, file_bytes=100, descriptors=32)


def confined(script: str, work: int, *readable: int, limits: Limits = LIMITS) -> str:
    return run_confined(SHELL, ["-s"], limits=limits, writable=work, readable=readable, text=script).output


def test_a_program_reads_and_writes_what_it_was_given(tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as work, tempfile.TemporaryFile(dir=tmp_path) as other:
        os.fchmod(work.fileno(), 0o666)
        content = os.memfd_create("content")
        os.pwrite(content, b"a line\n", 0)
        said = confined(
            f"read line </dev/fd/{content}; echo $line $GIVEN >>/dev/fd/{work.fileno()}; echo done",
            work.fileno(),
            content,
        )
        os.close(content)
        assert said == "done\n"
        assert work.read() == b"a line given\n"
        assert other.read() == b""


@pytest.mark.parametrize(
    "script",
    [
        "read line </etc/passwd",
        "read line <{folder}/secret",
        "echo x >{folder}/secret",
        "echo x >{folder}/new",
        "exec {folder}/program",
        "for n in 1 2 3 4 5 6 7 8 9 10; do echo 1234567890 || exit 1; done >>/dev/fd/{work}",  # 110 bytes
    ],
)
def test_a_program_has_nothing_else(tmp_path: Path, script: str) -> None:
    open_way(tmp_path)
    tmp_path.chmod(0o777)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "program").write_bytes(Path("/bin/true").read_bytes())
    for name, mode in (("secret", 0o666), ("program", 0o777)):
        (tmp_path / name).chmod(mode)
    with tempfile.TemporaryFile(dir=tmp_path) as work:
        os.fchmod(work.fileno(), 0o666)
        with pytest.raises(Deferred, match=r"^sh: it (failed with exit code|was killed by signal)"):
            confined(script.format(folder=tmp_path, work=work.fileno()), work.fileno())
        assert os.fstat(work.fileno()).st_size <= LIMITS.file_bytes
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "program"}
    assert (tmp_path / "secret").read_text() == "secret"
