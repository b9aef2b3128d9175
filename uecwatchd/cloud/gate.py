"""Whether a cloud may be worked against: closed by a halt, opened again by a probe.

A halt is our own side being wrong: credentials, certificates, the clock, the bucket.
Every set would fail of it alike, so none is tried until a probe shows that it has passed.
Some halts no probe can see, a right that is missing to register a kernel for one: so each time that a gate
closes again without a single set having come through, the next probe waits twice as long.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from uecwatchd.cloud.client import Cloud, connect
from uecwatchd.cloud.credentials import gather
from uecwatchd.cloud.dialect import DIALECTS
from uecwatchd.cloud.register import probe
from uecwatchd.cloud.upload import ensure_bucket
from uecwatchd.errors import Halted, UecError
from uecwatchd.settings import CloudSettings

# Soon after an administrator has mended something, and no nuisance to a cloud that is being mended.
FIRST_DELAY_SECONDS = 30.0
LONGEST_DELAY_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Closed:
    error: Halted
    probe_at: float


class Gates:
    """One gate for each configured cloud. Clients are made at first use and shared by all threads.

    `bucket` is the one sets use unless their sidecars say otherwise: no gate opens before it can be used.
    """

    def __init__(
        self,
        clouds: Mapping[str, CloudSettings],
        *,
        uploads: int,
        bucket: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = clouds
        self._uploads = uploads
        self._bucket = bucket
        self._clock = clock
        self._turn = threading.Lock()
        self._open: dict[str, Cloud] = {}
        self._closed: dict[str, _Closed] = {}
        self._delays: dict[str, float] = {}

    def enter(self, name: str) -> Cloud:
        """The cloud, ready to be asked. Raises the error that closed its gate."""
        with self._turn:
            if name in self._closed:
                raise self._closed[name].error
            if name not in self._open:
                self._open[name] = self._connect(name)
            return self._open[name]

    def close(self, name: str, error: Halted) -> None:
        """Let nobody in until a probe succeeds. Closing a closed gate changes nothing."""
        with self._turn:
            if name in self._closed:
                return
            delay = self._delays.get(name, FIRST_DELAY_SECONDS)
            self._delays[name] = min(2 * delay, LONGEST_DELAY_SECONDS)
            self._closed[name] = _Closed(error, self._clock() + delay)
            self._open.pop(name, None)

    def came_through(self, name: str) -> None:
        """A set has been registered: whatever closed this gate before is over."""
        with self._turn:
            self._delays.pop(name, None)

    def closed(self) -> Mapping[str, Halted]:
        with self._turn:
            return {name: closed.error for name, closed in self._closed.items()}

    def probe_due(self) -> bool:
        with self._turn:
            return any(self._clock() >= closed.probe_at for closed in self._closed.values())

    def probe(self) -> tuple[str, ...]:
        """Try each closed gate whose time has come with fresh credentials; the names of those now open."""
        with self._turn:
            due = [name for name, closed in self._closed.items() if self._clock() >= closed.probe_at]
        return tuple(name for name in due if self._opens(name))

    def _opens(self, name: str) -> bool:
        try:
            cloud = self._connect(name)
            probe(cloud)
            ensure_bucket(cloud, self._bucket)
        except UecError as error:
            self._stay_closed(name, error)
            return False
        with self._turn:
            self._closed.pop(name, None)
            self._open[name] = cloud
        return True

    def _stay_closed(self, name: str, error: UecError) -> None:
        """A cloud that is away says nothing of what closed its gate; another halt is the newer reason."""
        with self._turn:
            before = self._closed[name].error
            reason = error if isinstance(error, Halted) else before
            self._closed[name] = _Closed(reason, self._clock() + FIRST_DELAY_SECONDS)

    def _connect(self, name: str) -> Cloud:
        settings = self._settings[name]
        return connect(gather(settings), DIALECTS[settings.dialect], uploads=self._uploads)
