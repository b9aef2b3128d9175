"""Requests about published images, as verbs make them: confirmed, carried out, and waited for.

They change a cloud, so only the process with the lock of the state directory carries them out: a running
daemon, or else the verb itself. For the set of another host it is the daemon there.
"""

import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from uecwatchd.cli.meant_set import meant_set
from uecwatchd.cli.output import say
from uecwatchd.cli.program_log import program_log, progress_shown
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.connect import connect
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.errors import Halted, Rejected, UecError
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.history import StoryEntry
from uecwatchd.ledger.open import open_ledger
from uecwatchd.ledger.records import Request
from uecwatchd.ledger.state_folder import STATE_LOCK
from uecwatchd.outputs.wording import command, with_hint
from uecwatchd.service.daemon import Service
from uecwatchd.service.retire.thread import failure_words
from uecwatchd.system import lockfile, wakeup
from uecwatchd.system.clocks import Clocks
from uecwatchd.system.signals import handle_stop_signals, stop_on_signals
from uecwatchd.types import SetId

# A daemon deletes a bundle of a hundred parts in less. Afterwards it goes on by itself.
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.2


class NotConfirmed(UecError):
    """A person has not agreed to what a verb is about to do."""

    exit_code = 64


@dataclass(frozen=True, slots=True)
class ImageVerb:
    """A verb about published images, with the configuration and the open ledger."""

    name: str
    settings: Settings
    ledger: Ledger
    clouds: dict[str, Cloud] = field(default_factory=dict)  #: those that are connected
    host: str = ""  #: that has the ledger, if it is another one

    @contextmanager
    def about(self, words: str) -> Iterator[tuple["ImageVerb", SetId]]:
        """Find the set with this name or file, and yield it with the verb on its host.

        Raises NoSuchSet or Ambiguous.
        """
        with meant_set(words, self.ledger, self.settings) as meant:
            yield replace(self, ledger=meant.ledger, host=meant.host), meant.id

    def command(self, verb: str, set_id: SetId, cloud: str = "") -> str:
        """Return the command for a set of the host, for hints."""
        return command(verb, set_id.of_host(self.host), cloud)

    def check_cloud(self, cloud: str) -> None:
        """Raise Rejected if the configuration has no such cloud. An empty name means all."""
        if cloud and cloud not in self.settings.clouds:
            why = f"the configuration has {', '.join(sorted(self.settings.clouds)) or 'none'}"
            raise Rejected(f"there is no cloud named {cloud}", why, "Name one of them.")

    def connect(self, name: str) -> Cloud:
        """Return a cloud that can be asked. Raises Halted if it is not configured, and the cloud's errors."""
        if name not in self.settings.clouds:
            why = "images were published there, and the configuration does not have it"
            raise Halted(f"cloud {name}: cannot ask it", why, "Use the configuration they were made with.")
        if name not in self.clouds:
            uploads, before = self.settings.work.uploads, self.ledger.clouds()
            stop = stop_on_signals(code=os.EX_TEMPFAIL)
            self.clouds[name] = connect(self.settings.clouds[name], uploads=uploads, before=before, stop=stop)
        return self.clouds[name]

    def carry_out(self, request: Request) -> bool:
        """Have a request carried out, and report what was done. Return False if it is still open."""
        before, state = self.ledger.history.story(request.set_id), self.settings.state.dir
        self.ledger.put_request(request)
        if self.host and not self._host_works():
            say(f"Host {self.host} does it when its service runs again.")
            return False
        end = time.monotonic() + PATIENCE_SECONDS
        while self._is_open(request):
            if not self.host:
                if not lockfile.is_locked(state, STATE_LOCK) and self._carry_out_here():
                    return not self._is_open(request)
                wakeup.wake_daemon(state)
            if time.monotonic() > end or self._has_failed(request, before):
                break
            time.sleep(POLL_SECONDS)
        for entry in self._news(request, before):
            say(with_hint(entry))
        return not self._is_open(request)

    def _host_works(self) -> bool:
        hosts = self.ledger.sessions.hosts()
        return any(one.host == self.host and one.is_at_work for one in hosts)

    def _has_failed(self, request: Request, before: Sequence[StoryEntry]) -> bool:
        """Tell if the daemon has tried it once, and tries it again later."""
        words = failure_words(request)
        return any(one.sentence.startswith(words) for one in self._news(request, before))

    def _news(self, request: Request, before: Sequence[StoryEntry]) -> list[StoryEntry]:
        """Return the new entries. Their times are by the clock of the host, which may be another one."""
        story = self.ledger.history.story(request.set_id)
        return [one for one in story if one not in before and one.level != "debug"]

    def _is_open(self, request: Request) -> bool:
        return any(
            (one.set_id, one.verb, one.cloud) == (request.set_id, request.verb, request.cloud)
            for one in self.ledger.requests()
            if one.due is None
        )

    def _carry_out_here(self) -> bool:
        """Carry out all open requests in this process. Return False if a daemon has just started."""
        log = program_log()
        clocks = Clocks(random=random.random)
        service = Service(self.settings, listener=log, tracker=log.tracker, clocks=clocks, ledger=self.ledger)
        handle_stop_signals(service.stop, code=os.EX_TEMPFAIL)
        try:
            with progress_shown(log):
                service.carry_out_requests()
        except lockfile.LockTaken:
            return False
        return True


@contextmanager
def image_verb(name: str, config: Path | None) -> Iterator[ImageVerb]:
    """Open what a verb about published images needs."""
    settings = load(config, environ=os.environ)
    with closing(open_ledger(settings)) as ledger:
        yield ImageVerb(name, settings, ledger)


def held_words(set_id: SetId, cloud: str) -> str:
    """Return the words for a held set, as a whole or on one cloud."""
    return f"{set_id.name} is held" + (f" on cloud {cloud}" if cloud else "")


def confirm(question: str, *, yes: bool, verb: str) -> None:
    """Ask on a terminal, unless the answer was given as an option. Raises NotConfirmed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmed(verb, "there is no terminal to ask on", f"In a script: uecwatchd {verb} … --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfirmed(verb, "it was not confirmed", "Nothing was changed.")
