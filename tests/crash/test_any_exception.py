"""Any exception, anywhere: the daemon lives, says so in a sentence, once, and goes on when it has passed.

Functions that touch the world, and requests to a cloud, are broken by exceptions that nobody
foresaw there: here a part of them, each in one way. `EVERY=1 pytest tests/crash/test_any_exception.py` breaks
each of them, and the verbs with them, which takes half an hour; `EVERY=ledger` those with that in their name.
"""

import json
import os
import re
import runpy
import select
import signal
import subprocess
import sys
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.support.host import Host
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

BREAKER = Path(__file__).parent / "breaker.py"
FAULTS = tuple(runpy.run_path(str(BREAKER))["FAULTS"])
EVERY = os.environ.get("EVERY", "")
# One function in so many is broken unless all are to be; all requests to a cloud always are.
ONE_IN = 20
AT_ONCE = 4
UUID_AT = 1024 + 104  # in a file system of the ext family
# How long a daemon is watched that is broken for good: long enough to flood, if it does.
WATCHED_SECONDS = 1.0
# In that time: five words at its start, two for the set, one or two for the trouble, and what the trouble
# makes of the set. One that reports at each check would have reported a hundred times.
MOST_LINES = 14
# Longer than anything here takes on a busy machine; what has not ended by then is killed and reported.
EXIT_CODES = {0, 65, 69, 70, 73, 74, 75, 77, 78}
SIDECAR = 'kernel = "none"\nramdisk = "none"\npublic = true\ndescription = "d"\ntags = { a = "b" }\n'


class Breaker:
    """Runs the program, broken, in a process of its own."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(BREAKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def begin(self, host: Host, verb: str, *, breaks: str = "", fault: str = "", called: str = "") -> int:
        order = {
            "arguments": verb.split(),
            "config": str(host.config),
            "stderr": str(host.folder / f"{verb.split()[0]}.stderr"),
            "called": called,
            "breaks": breaks,
            "with": fault,
        }
        assert self._server.stdin
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        return int(self._line())

    def ended(self, pid: int) -> int:
        """Return the exit code; a signal's number below zero if it had to be ended."""
        if not self._has_spoken():
            os.kill(pid, signal.SIGKILL)
        return int(self._line())

    def run(self, host: Host, verb: str, **how: str) -> int:
        return self.ended(self.begin(host, verb, **how))

    def watch(self, host: Host, **how: str) -> int:
        """Let a daemon run for a while once it watches its folder, or says why not yet; then stop it."""
        pid = self.begin(host, "run", **how)
        until(
            lambda: re.search("Watching |Nothing is begun", output_of(host, "run")) or self._has_spoken(0.05)
        )
        self._has_spoken(WATCHED_SECONDS)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return self.ended(pid)

    def _has_spoken(self, seconds: float = PATIENCE_SECONDS) -> bool:
        return bool(select.select([self._server.stdout], [], [], seconds)[0])

    def _line(self) -> bytes:
        assert self._server.stdout
        assert self._has_spoken()
        return self._server.stdout.readline()

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        with self._server:  # waits, and closes what it was heard by
            pass


@dataclass(frozen=True)
class Stage:
    """A cloud, a file system to make images of, and the programs that are free to be run."""

    cloud: Sandbox
    folder: Path
    image: bytes
    host_class: type[Host]
    free: "SimpleQueue[Breaker]"

    def host(self, name: str) -> Host:
        """With one set, whose image is like no other's."""
        host = self.host_class.made(self.folder / name, self.cloud)
        host.configure(host.config.read_text().replace("settle = 0.3", "settle = 0.05"))
        image = bytearray(self.image)
        image[UUID_AT : UUID_AT + 16] = uuid.uuid4().bytes
        (host.spool / f"{name}.img").write_bytes(image)
        (host.spool / f"{name}.toml").write_text(SIDECAR)
        return host


def output_of(host: Host, verb: str) -> str:
    path = host.folder / f"{verb}.stderr"
    return path.read_text(errors="backslashreplace") if path.exists() else ""


def sentences(words: str) -> list[str]:
    """Lines but those of a traceback that goes with a sentence, which are set in."""
    return [line for line in words.splitlines() if not line.startswith("    ")]


def wrong(stage: Stage, number: int, breaks: str, fault: str) -> Iterator[str]:
    """Return the mistakes when a function fails for good, and when it works again."""
    name, breaker = f"set{number}", stage.free.get()
    host = stage.host(name)
    try:
        code = breaker.watch(host, breaks=breaks, fault=fault)
        lines = sentences(output_of(host, "run"))
        if code not in EXIT_CODES:
            yield f"run ended with {code}: {lines[-3:]}"
        if len(lines) > MOST_LINES:
            yield f"run printed {len(lines)} lines, the last of them {lines[-1]}"
        if any(line.startswith("Traceback") for line in lines):
            yield f"run printed what is no sentence: {lines[-1]}"
        for verb in ("once", f"status {name}", "check", f"retry {name}") if EVERY else ():
            code = breaker.run(host, verb, breaks=breaks, fault=fault)
            said = sentences(output_of(host, verb.split()[0]))
            if code not in EXIT_CODES or any(line.startswith("Traceback") for line in said):
                yield f"{verb} ended with {code}: {said[-1:]}"
        yield from wrong_afterwards(stage, host, breaker, name)
    finally:
        stage.free.put(breaker)


def wrong_afterwards(stage: Stage, host: Host, breaker: Breaker, name: str) -> Iterator[str]:
    breaker.run(host, f"retry {name}")
    (host.folder / "once.stderr").unlink(missing_ok=True)
    code = breaker.run(host, "once")
    if code or not (host.spool / f"{name}.emi").exists():
        yield f"afterwards, once ended with {code}: {output_of(host, 'once').splitlines()[-2:]}"
    images = [one for one in stage.cloud.images if one.name.startswith(f"{name}-")]
    if len(images) != 1:
        yield f"{len(images)} images"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, host_class: type[Host]) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    image = folder / "image"
    subprocess.run(["mke2fs", "-q", "-t", "ext2", str(image), "256k"], check=True)
    with Sandbox(folder / "cloud") as cloud, ExitStack() as stack:
        free: SimpleQueue[Breaker] = SimpleQueue()
        for _ in range(AT_ONCE):
            breaker = Breaker()
            stack.callback(breaker.close)
            free.put(breaker)
        yield Stage(cloud, folder, image.read_bytes(), host_class, free)


@pytest.fixture(scope="module")
def breakable(stage: Stage) -> Sequence[str]:
    """Return the functions that are called while a daemon registers one set, and by the verbs."""
    host, breaker, called = stage.host("first"), stage.free.get(), stage.folder / "called"
    breaker.run(host, "once", called=str(called))
    breaker.watch(host, called=str(called))
    for verb in ("status first", "check", "retry first"):
        breaker.run(host, verb, called=str(called))
    stage.free.put(breaker)
    assert (host.spool / "first.emi").exists(), output_of(host, "once")
    return sorted(set(called.read_text().split()))


def chosen(breakable: Sequence[str]) -> list[str]:
    if EVERY:
        return [name for name in breakable if EVERY == "1" or EVERY in name]
    return [name for name in breakable if name.startswith(("s3:", "ec2:")) or not _number(name) % ONE_IN]


def _number(name: str) -> int:
    """The same in every run."""
    return zlib.crc32(name.encode())


@pytest.mark.timeout(7200 if EVERY else 300)
def test_no_exception_ends_the_daemon_or_floods_the_journal_or_loses_a_set(
    stage: Stage, breakable: Sequence[str]
) -> None:
    wings = runpy.run_path(str(BREAKER))["BREAKABLE"]
    assert all(any(name.startswith(wing) for name in breakable) for wing in wings)
    assert {"ec2:RegisterImage", "s3:PutObject", "uecwatchd.ledger.sql_ledger:SqlLedger.put_set"} <= set(
        breakable
    )
    cases = [(name, FAULTS[_number(name[::-1]) % len(FAULTS)]) for name in chosen(breakable)]

    def tried(number: int) -> list[str]:
        return [f"{' '.join(cases[number])}: {one}" for one in wrong(stage, number, *cases[number])]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [one for many in pool.map(tried, range(len(cases))) for one in many]
    assert not found, "\n".join(found)
