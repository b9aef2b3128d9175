"""Reports about clouds: what they are, that they halt all sets, and that they can be used again."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.detect import DetectedDialect, address_of
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import UecError
from uecwatchd.events import Event, Kind, Monitor
from uecwatchd.ledger.api import Ledger
from uecwatchd.service.cloud_notices import cloud_warnings, describe_cloud
from uecwatchd.types import DetectedCloud


@dataclass(frozen=True, slots=True)
class CloudReports:
    """Called from the threads that ask clouds. Each report is a reason to scan: `wake` starts one."""

    ledger: Ledger
    monitor: Monitor
    wake: Callable[[], None]

    def detected(self, clouds: Mapping[str, CloudSettings], cloud: Cloud, found: DetectedDialect) -> None:
        """Report what a cloud is, if the configuration does not say so, and keep it for the next start."""
        if clouds[cloud.name].dialect not in DIALECTS:
            with contextlib.suppress(UecError):  # what cannot be kept is detected again at the next start
                known = DetectedCloud(found.dialect.name, address_of(cloud.account))
                self.ledger.put_cloud(cloud.name, known)
            self.monitor.tell(Event(Kind.READY, describe_cloud(cloud, found)))
            self.wake()
        for sentence in cloud_warnings(cloud):
            self.monitor.tell(Event(Kind.READY, sentence, level="warning"))

    def halted(self, error: UecError) -> None:
        self.monitor.tell(Event(Kind.HALTED, str(error), level="warning"))
        self.wake()

    def resumed(self, name: str, is_news: bool) -> None:  # noqa: FBT001 (a callback)
        if is_news:
            self.monitor.tell(Event(Kind.READY, f"Cloud {name} can be used again"))
        self.wake()
