"""Runs the program again and again without importing it each time: a fork for each run.

Each run is a process of its own, with its own environment, working directory and output, that ends as
`python -m uecwatchd` would. Only what every start has in common, the imports, is done once.

The requests come over a Unix socket on standard input, one at a time: JSON with `argv`, `environ` and `cwd`,
and the run's standard output and standard error as descriptors. The answer is the run's process id at once,
then its wait status, a line each.
"""

import json
import os
import socket
import sys
import time

import uecwatchd.byhand
import uecwatchd.cli
import uecwatchd.demo.show
import uecwatchd.sandbox.server

REQUEST_BYTES = 1 << 20


def serve() -> int:
    """The exit code of a run in its own process; 0 in the first process, when nobody asks any more."""
    asker = socket.socket(fileno=0)
    while True:
        data, descriptors, _, _ = socket.recv_fds(asker, REQUEST_BYTES, 2)
        if not data:
            return 0
        child = os.fork()
        if child == 0:
            return _run(json.loads(data), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        asker.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        asker.sendall(f"{status}\n".encode())


def _run(request: dict[str, object], descriptors: list[int]) -> int:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, *descriptors)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    argv, environ, cwd = (request[key] for key in ("argv", "environ", "cwd"))
    assert isinstance(argv, list)
    assert isinstance(environ, dict)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    os.chdir(str(cwd))
    sys.argv = ["uecwatchd", *argv]
    return uecwatchd.cli.main(argv)


if __name__ == "__main__":
    sys.exit(serve())
