"""Writes the overviews, the page and the metrics, into their folders while the service runs.

Each is written in a thread of its own, so that a disk that hangs stops neither the service's loop nor the
other one. A folder that cannot be written is reported once while that lasts, and no work depends on it.
"""

import platform
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from uecwatchd.config.records import OutputSettings
from uecwatchd.events import Event, Kind, Listener
from uecwatchd.ledger.history import History
from uecwatchd.ledger.versions import Versions
from uecwatchd.outputs.fleet_overview import MOST_ATTEMPTS, FleetReader
from uecwatchd.outputs.metrics import METRICS_FILE, write_metrics
from uecwatchd.outputs.overview import Overview
from uecwatchd.outputs.overview_json import write_overview
from uecwatchd.outputs.page import render_page
from uecwatchd.outputs.progress import ProgressTracker
from uecwatchd.outputs.public_files import replace_public
from uecwatchd.outputs.situation import Situation, SpoolFolder
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.policy import is_shown
from uecwatchd.service.service_context import Shared
from uecwatchd.system.clocks import Clocks
from uecwatchd.system.disk_space import free_space
from uecwatchd.system.version import version

# For a person who watches the page it is often enough; each time takes two writes that reach the disk.
LEAST_PAUSE_SECONDS = 5.0
# The page promises a minute, and the loop looks at least every ten seconds.
RENEW_AFTER_SECONDS = 45.0
# With thousands of sets an overview takes longer. Then it takes at most a tenth of a processor.
PAUSE_TIMES = 9
# A write that takes longer is reported: the disk or the server hangs.
HANGING_SECONDS = 60.0
# How long the end of the service waits for the last write.
LAST_SECONDS = 5.0

PAGE = "outputs.page"
Write = Callable[[Overview], bytes]
FILES: Mapping[str, Mapping[str, Write]] = {
    PAGE: {"status.json": write_overview, "status.html": render_page},
    "outputs.metrics": {METRICS_FILE: write_metrics},
}


@dataclass(frozen=True, slots=True)
class OverviewSources:
    """Sources of the facts of an overview."""

    history: History
    versions: Versions
    tracker: ProgressTracker
    listener: Listener
    conditions: Conditions
    clocks: Clocks
    fleet: FleetReader

    @classmethod
    def of(cls, shared: Shared) -> Self:
        ledger, reporting, clocks = shared.ledger, shared.reporting, shared.clocks
        fleet = FleetReader(ledger.sessions, ledger.others, is_shown=is_shown, monotonic=clocks.monotonic)
        told = (reporting.tracker, reporting.listener, shared.conditions)
        return cls(ledger.history, ledger.versions, *told, clocks, fleet)

    def read(self, situation: Situation, *, is_last: bool, with_others: bool = False) -> Overview:
        """Return the overview of a situation now. It may wait for the ledger, and for disks of the spools.

        Only one thread may read it `with_others`: the sets of other hosts.
        """
        now, history = self.clocks.now(), self.history
        ahead = now - self.clocks.monotonic()
        return Overview(
            now,
            platform.node(),
            version(),
            situation,
            probes={cloud: at + ahead for cloud, at in situation.probes.items()},
            folders=tuple(_with_space(folder) for folder in situation.folders),
            progress={one.latest.set: one for one in self.tracker.snapshot()},
            recent=history.recent(MOST_ATTEMPTS),
            successes=history.successes(),
            failures=history.failures(),
            totals=history.totals(),
            images=self.versions.count(),
            is_last=is_last,
            fleet=self.fleet.read(now=now) if with_others else self.fleet.hosts(),
        )


def _with_space(folder: SpoolFolder) -> SpoolFolder:
    space = free_space(Path(folder.path))
    return replace(folder, free_bytes=space.free_bytes if space else None)


class OverviewThread:
    """Thread that writes one overview into its folder. Belongs to the service's loop."""

    def __init__(
        self,
        setting: str,
        folder: Path,
        *,
        files: Mapping[str, Write],
        sources: OverviewSources,
    ) -> None:
        self.folder = folder
        self.setting = setting
        self._files = files
        self._sources = sources
        self._conditions = sources.conditions
        self._monotonic = sources.clocks.monotonic
        self._thread: threading.Thread | None = None
        self._began = self._next_start = self._renew_at = float("-inf")
        self._written: Situation | None = None

    def is_due(self) -> bool:
        """Return True if a changed situation can be written now. Report a write that hangs."""
        now, is_busy = self._monotonic(), self._thread is not None and self._thread.is_alive()
        hangs = is_busy and now - self._began > HANGING_SECONDS
        text = f"{self.setting}: {self.folder} hangs: a write there does not end" if hangs else ""
        self._conditions.set(("hanging", self.setting), text)
        return not is_busy and now >= self._next_start

    def start_if_changed(self, situation: Situation) -> None:
        """Begin to write, if there is something new or the file gets old. Call it only when it is due."""
        if situation != self._written or situation.running or self._monotonic() >= self._renew_at:
            self._start(situation)

    def finish(self, situation: Situation, seconds: float) -> None:
        """Write for the last time, and wait for that; give up a write that takes longer."""
        if self._thread:
            self._thread.join(seconds)
        if not (self._thread and self._thread.is_alive()):
            self._start(situation, is_last=True).join(seconds)

    def _start(self, situation: Situation, *, is_last: bool = False) -> threading.Thread:
        self._began, self._written = self._monotonic(), situation
        work = partial(self._write, situation, is_last=is_last)
        # It ends with the process, so that a stop does not wait for a disk that hangs.
        self._thread = threading.Thread(target=work, daemon=True, name=self.setting)
        self._thread.start()
        return self._thread

    def _write(self, situation: Situation, *, is_last: bool) -> None:
        key = ("outputs", self.setting)
        was_failing = self._conditions.lasts(key)
        with self._conditions.guard(key, self.setting):
            with_others = self.setting == PAGE
            overview = self._sources.read(situation, is_last=is_last, with_others=with_others)
            for name, write in self._files.items():
                replace_public(self.folder, name, write(overview))
        ended = self._monotonic()
        if was_failing and not self._conditions.lasts(key):
            sentence = f"{self.setting}: {self.folder} can be written again"
            self._sources.listener.tell(Event(Kind.READY, sentence))
        self._renew_at = ended + RENEW_AFTER_SECONDS
        self._next_start = ended + max(LEAST_PAUSE_SECONDS, PAUSE_TIMES * (ended - self._began))


class Overviews:
    """The overviews that the configuration asks for. Belongs to the service's loop.

    `situation` returns what the loop knows now. `files` are the files of each setting.
    """

    def __init__(
        self,
        settings: OutputSettings,
        *,
        sources: OverviewSources,
        situation: Callable[[], Situation],
        files: Mapping[str, Mapping[str, Write]] = FILES,
    ) -> None:
        self._files = files
        self._make = partial(OverviewThread, sources=sources)
        self._situation = situation
        self._conditions = sources.conditions
        self._threads: tuple[OverviewThread, ...] = ()
        self._is_owner = False
        self.configure(settings)

    def begin(self) -> None:
        """Note that this process owns the folders, so that it may write about the sets in them."""
        self._is_owner = True

    def configure(self, settings: OutputSettings) -> None:
        """Take another configuration."""
        # The same folder keeps its thread: two must not write there at once.
        before = {(thread.setting, thread.folder): thread for thread in self._threads}
        self._threads = tuple(
            before.get(output) or self._make(*output, files=self._files[output[0]])
            for output in settings.folders().items()
        )

    def write_if_due(self) -> None:
        """Begin to write what has changed, or is getting old. Returns at once."""
        with self._conditions.guard(("outputs",), "the overviews"):
            if due := [thread for thread in self._threads if thread.is_due()]:
                situation = self._situation()
                for thread in due:
                    thread.start_if_changed(situation)

    def finish(self) -> None:
        """Write all for the last time."""
        with self._conditions.guard(("outputs",), "the overviews"):
            for thread in self._threads if self._is_owner else ():
                thread.finish(self._situation(), LAST_SECONDS)
