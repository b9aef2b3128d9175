"""Actions that a confined process can no longer do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.host import NOBODY, open_way

# Confines itself, tries each expression, and prints those that were not refused, with the remark.
PROGRAM = """
import json, os, resource, socket, sys
from uecwatchd.system.confinement import Limits, confine
pipe = os.pipe()
user = int(sys.argv[2])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
codes = [compile(source, "<try>", "eval") for source in json.loads(sys.argv[1])]
remark = confine(Limits(cpu_seconds=5, memory_bytes=256 << 20))
done = []
for number, code in enumerate(codes):
    try:
        eval(code)
    except (OSError, MemoryError, ValueError):
        continue
    done.append(number)
print(json.dumps([done, remark, os.geteuid()]))
"""
REFUSED = (
    "os.open('/etc/passwd', os.O_RDONLY)",
    "os.open('/proc/self/status', os.O_RDONLY)",
    "os.open('{folder}', os.O_RDONLY)",
    "os.open('{folder}/new', os.O_WRONLY | os.O_CREAT)",
    "os.mkdir('{folder}/new')",
    "os.unlink('{folder}/file')",
    "os.rename('{folder}/file', '{folder}/other')",
    "os.truncate('{folder}/file', 0)",
    "os.symlink('/etc', '{folder}/new')",
    "os.execv('/bin/true', ['true'])",
    "os.fork()",
    "os.pipe()",
    "os.dup(1)",
    "socket.socket()",
    "socket.socket(socket.AF_UNIX)",
    "bytearray(300 << 20)",
    "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    "resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
)
ALLOWED = ("os.write(pipe[1], b'x')", "os.read(pipe[0], 1)", "bytearray(50 << 20)")


def confined(folder: Path, *expressions: str, user: int) -> tuple[list[int], str, int]:
    sources = [expression.replace("{folder}", str(folder)) for expression in expressions]
    command = [sys.executable, "-c", PROGRAM, json.dumps(sources), str(user)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers, remark, uid = json.loads(done.stdout)
    return numbers, remark, uid


@pytest.mark.parametrize("user", [0, NOBODY], ids=["root", "another user"])
def test_a_confined_process_can_open_start_and_change_nothing(tmp_path: Path, user: int) -> None:
    open_way(tmp_path)
    (tmp_path / "file").write_text("content")
    (tmp_path / "file").chmod(0o666)
    tmp_path.chmod(0o777)
    done, remark, uid = confined(tmp_path, *REFUSED, *ALLOWED, user=user)
    expressions = [*REFUSED, *ALLOWED]
    assert [expressions[number] for number in done] == list(ALLOWED)
    assert remark == "" or "Landlock is not available here" in remark
    assert uid == NOBODY
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_process_that_computes_for_too_long_is_ended(tmp_path: Path) -> None:
    endless = PROGRAM.replace("cpu_seconds=5", "cpu_seconds=1")
    command = [sys.executable, "-c", endless, '["all(True for _ in iter(int, 1))"]', "0"]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert ended.returncode < 0
