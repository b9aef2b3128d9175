"""The daemon, running: as a process of its own, or as a thread of this one."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from subprocess import Popen

from tests.support.host import Host
from tests.support.program_runs import Run
from tests.support.waiting import PATIENCE_SECONDS, no_stop, until
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.events import Listener
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.outputs.systemd import Notifier
from uecwatchd.service.daemon import Service
from uecwatchd.system.clocks import Clocks


@contextmanager
def daemon_process(host: Host) -> Iterator[Run]:
    """Run `uecwatchd run` for a host; stop it in the end, unless it has ended."""
    process = host.start("run")
    try:
        yield process
    finally:
        process.terminate()
        if process.stderr and not process.stderr.closed:
            process.communicate(timeout=PATIENCE_SECONDS)


def stop_daemon(process: Run) -> str:
    """Stop a daemon and return what it said on standard error. Fails if it did not end well."""
    process.terminate()
    _, talk = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, talk
    return talk


def wait_for_line(process: "Run | Popen[str]", words: str) -> str:
    """Return the next line with `words` in it that a daemon says on standard error."""
    assert process.stderr
    while words not in (line := process.stderr.readline()):
        assert line, f"it has ended, and did not say: {words}"
    return line


def written_sets(ledger: Ledger) -> tuple[SetRecord, ...]:
    """Return the sets with the stages that would be written later."""
    ledger.history.flush()
    return ledger.sets()


def stop_while_waiting(service: Service, ledger: Ledger, *, claimed: str, stage: str) -> SetRecord:
    """Stop a service whose only set waits in `stage` for what another set has claimed; return its record."""
    work = threading.Thread(target=service.once, daemon=True)
    with ledger.claim(claimed, check=no_stop):
        work.start()
        until(lambda: any(record.stage.startswith(stage) for record in written_sets(ledger)), stage)
        work.join(1)  # from the beginning of the stage until it waits
        service.stop()
        work.join(PATIENCE_SECONDS / 3)
        assert not work.is_alive(), "it still waits"
    (record,) = ledger.sets()
    return record


def await_notice(systemd: socket.socket, word: bytes) -> None:
    """Read what a daemon tells systemd until it begins with `word`; the socket's timeout is the bound."""
    while not systemd.recv(65536).startswith(word):
        pass


@contextmanager
def opened_service(
    host: Host,
    listener: Listener,
    *,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    patience: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
) -> Iterator[Service]:
    """Make the service of a host in this process, with its ledger open."""
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        yield Service(
            settings,
            listener=listener,
            ledger=book,
            clocks=Clocks(now=now, monotonic=monotonic),
            patience=patience,
        )


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
