"""The daemon, running: as a process of its own, or as a thread of this one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import Popen

from tests.support.host import Host
from tests.support.waiting import PATIENCE_SECONDS
from uecwatchd.config.records import Settings
from uecwatchd.outputs.systemd import Notifier
from uecwatchd.service.daemon import Service


@contextmanager
def daemon_process(host: Host) -> Iterator["Popen[str]"]:
    """Run `uecwatchd run` for a host; stop it in the end, unless it has ended."""
    process = host.popen("run")
    try:
        yield process
    finally:
        process.terminate()
        if process.stderr and not process.stderr.closed:
            process.communicate(timeout=PATIENCE_SECONDS)


def stop_daemon(process: "Popen[str]") -> str:
    """Stop a daemon and return what it said on standard error. Fails if it did not end well."""
    process.terminate()
    _, talk = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, talk
    return talk


def wait_for_line(process: "Popen[str]", words: str) -> str:
    """Return the next line with `words` in it that a daemon says on standard error."""
    assert process.stderr
    while words not in (line := process.stderr.readline()):
        assert line, f"it has ended, and did not say: {words}"
    return line


@contextmanager
def daemon_thread(
    service: Service, notifier: Notifier | None = None, *, reloaded: Callable[[], Settings] | None = None
) -> Iterator[Service]:
    """Run a service's loop in a thread; stop it in the end."""
    loop = threading.Thread(
        target=service.run, args=(notifier or Notifier({}),), kwargs={"reloaded": reloaded}
    )
    loop.start()
    try:
        yield service
    finally:
        service.stop()
        loop.join(PATIENCE_SECONDS)
        assert not loop.is_alive()
