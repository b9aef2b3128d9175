"""Fork servers: processes that run the program again and again without importing it each time.

`serve` runs the program for the tests, `serve_lines` what a test of crashes makes of it: each line of JSON on
standard input is a run, answered on standard output with its process id and then with its exit code.

Each run is a process of its own, with its own environment, working directory and output, that ends as
`python -m uecwatchd` would. Only what every start has in common is done once: the imports,
and what most read of the cloud library's models.

The requests of `serve` come over a Unix socket on standard input, a packet each: JSON with `argv`, `environ`,
`cwd` and `user`, and three descriptors: the run's standard output and standard error, and where to answer.
The answer is the run's process id at once, then its wait status, a line each. Several runs may go on at
the same time.
"""

import encodings.idna
import encodings.utf_8_sig  # noqa: F401 (found now: what is looked for later may lie where only root can read)
import gc
import json
import locale  # noqa: F401
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import uecwatchd.cli.main
import uecwatchd.demo.run
import uecwatchd.sandbox.server
from uecwatchd.cli.verbs import VERBS
from uecwatchd.clouds.client import make_client

REQUEST_BYTES = 1 << 20


def load_program() -> None:
    """Load what every run needs: the verbs, and what botocore reads of its models."""
    for verb in VERBS:
        verb.load()
    for service in ("s3", "ec2"):
        make_client(service, region_name="x", aws_access_key_id="x", aws_secret_access_key="x")
    # Or each run would look through all of it for garbage at its end, which takes it half a second.
    gc.collect()
    gc.freeze()


def serve_lines(child: Callable[[dict[str, Any]], int]) -> None:
    """Fork for each line of JSON on standard input; the child's exit code is what `child` returns for it."""
    load_program()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()


def serve() -> int:
    """Fork for each request. Returns a run's exit code in its own process, and 0 in the server."""
    requests = socket.socket(fileno=0)
    load_program()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for the processes that wait for runs
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        if not data:
            return 0
        if os.fork() == 0:
            requests.close()
            return _run_and_wait(json.loads(data), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _run_and_wait(request: dict[str, object], out: int, talk: int, answers: int) -> int:
    """Start a run, answer with its process id, wait for its end, and answer with its status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(answers)
        return _run(request, out, talk)
    os.write(answers, f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(answers, f"{status}\n".encode())
    os._exit(0)


def _run(request: dict[str, object], *descriptors: int) -> int:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, *descriptors)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Those of the server take it for granted that they can seek, which no pipe can.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    argv, environ, cwd, user = (request[key] for key in ("argv", "environ", "cwd", "user"))
    assert isinstance(argv, list)
    assert isinstance(environ, dict)
    assert isinstance(user, list)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    os.chdir(str(cwd))
    sys.argv = ["uecwatchd", *argv]
    number, group, groups = user
    if number:
        os.setgroups(groups)
        os.setgid(group)
        os.setuid(number)
    return uecwatchd.cli.main.main(argv)


if __name__ == "__main__":
    sys.exit(serve())
