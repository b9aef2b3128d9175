"""Runs of the program, each a process of its own that is forked from one that has imported it."""

import atexit
import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import TextIO

# Longer than anything here takes on a busy machine, so that a hang becomes a failure.
PROGRAM_SECONDS = 120
PIPE_BYTES = 1 << 16

User = tuple[int, int, Sequence[int]]  # its number, that of its group, those of other groups
ROOT: User = (0, 0, ())


class Run:
    """A run that goes on. What it has is as in `subprocess.Popen`."""

    def __init__(
        self, answers: socket.socket, *, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self._answers = answers
        self._lines = b""
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self.pid = self._number()

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._answers.settimeout(timeout)
            try:
                self.returncode = os.waitstatus_to_exitcode(self._number())
            except (TimeoutError, BlockingIOError) as error:
                raise subprocess.TimeoutExpired("uecwatchd", timeout or 0.0) from error
            self._answers.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both outputs to their ends, and close them."""
        end = None if timeout is None else time.monotonic() + timeout
        outputs = {"stdout": self.stdout, "stderr": self.stderr}
        read = dict.fromkeys(outputs, b"")
        with selectors.DefaultSelector() as waiting:
            for name, stream in outputs.items():
                if stream and not stream.closed:
                    waiting.register(stream, selectors.EVENT_READ, name)
            while waiting.get_map():
                found = waiting.select(None if end is None else max(0.0, end - time.monotonic()))
                if not found:
                    raise subprocess.TimeoutExpired("uecwatchd", timeout or 0.0)
                for key, _ in found:
                    data = os.read(key.fd, PIPE_BYTES)
                    read[key.data] += data
                    if not data:
                        waiting.unregister(key.fileobj)
        for stream in outputs.values():
            if stream:
                stream.close()
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        return read["stdout"].decode(), read["stderr"].decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _number(self) -> int:
        while b"\n" not in self._lines:
            data = self._answers.recv(100)
            assert data, "the fork server has ended"
            self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        return int(line)


class ForkServer:
    """The process that forks each run of the program, as in `fork_server.py`. It ends with the tests."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            script = str(Path(__file__).with_name("fork_server.py"))
            self._process = subprocess.Popen(
                [sys.executable, script], stdin=theirs, stdout=subprocess.DEVNULL
            )

    def run(
        self, arguments: Sequence[str], *, environ: Mapping[str, str], user: User = ROOT
    ) -> "CompletedProcess[str]":
        """Run the program to its end."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as talk:
            run = Run(self._fork(arguments, environ, user, out.fileno(), talk.fileno()))
            try:
                code = run.wait(PROGRAM_SECONDS)
            finally:
                run.kill()
            out.seek(0)
            talk.seek(0)
            return CompletedProcess(list(arguments), code, out.read(), talk.read())

    def start(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str],
        user: User = ROOT,
        stderr: TextIO | None = None,
    ) -> Run:
        """Start the program. Standard output is a pipe, and so is standard error, unless it is a file."""
        with ExitStack() as theirs:
            out, out_end = _pipe(theirs)
            talk, talk_end = (None, stderr.fileno()) if stderr else _pipe(theirs)
            answers = self._fork(arguments, environ, user, out_end, talk_end)
        return Run(answers, stdout=out, stderr=talk)

    def _fork(
        self, arguments: Sequence[str], environ: Mapping[str, str], user: User, out: int, talk: int
    ) -> socket.socket:
        """Return the socket on which the run's process id comes, and then its wait status."""
        request = {"argv": arguments, "environ": dict(environ), "cwd": str(Path.cwd()), "user": user}
        answers, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._requests, [json.dumps(request).encode()], [out, talk, theirs.fileno()])
        return answers

    def close(self) -> None:
        self._requests.close()
        self._process.wait(PROGRAM_SECONDS)


def _pipe(theirs: ExitStack) -> tuple[TextIO, int]:
    """Make a pipe; the end to write to is closed with the stack."""
    end, their_end = os.pipe()
    theirs.callback(os.close, their_end)
    return os.fdopen(end), their_end


@functools.cache
def fork_server() -> ForkServer:
    made = ForkServer()
    atexit.register(made.close)
    return made
