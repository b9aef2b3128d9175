"""Notes about one attempt, for the history of its set."""

import threading
from collections.abc import Callable
from itertools import pairwise

from uecwatchd.errors import problem
from uecwatchd.events import Event, Kind, Progress
from uecwatchd.ledger.history import AttemptOutcome, AttemptRecord, StageTime
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import PARTLY, is_published

# Repeated answers of a cloud that is ill: the first ones are enough for its administrator.
MOST_REQUEST_IDS = 20


class AttemptNotes:
    """Listener that collects the facts of one attempt. `now` is the wall clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()  # guards all below; members are uploaded in several threads
        self._stages: list[tuple[str, float]] = []  # each with its beginning
        self._sent = 0
        self._replaced = ""
        self._request_ids: list[str] = []

    def begin_stage(self, name: str) -> None:
        with self._lock:
            self._stages.append((name, self._now()))

    def tell(self, event: Event) -> None:
        with self._lock:
            if event.kind == Kind.UPLOADED:
                self._sent += int(event.fields.get("bytes", 0))
            self._replaced = str(event.fields.get("replaced", self._replaced))
            request_id = str(event.fields.get("request_id", ""))
            if request_id and request_id not in self._request_ids[:MOST_REQUEST_IDS]:
                self._request_ids.append(request_id)

    def progress(self, progress: Progress) -> None:
        """Ignore progress."""

    def record(self, record: SetRecord) -> AttemptRecord:
        """Return the attempt as it is at its end, with the record of its set then.

        One that succeeds on its cloud, while the set is not done on another, is not the success of the set.
        """
        state: AttemptOutcome = (
            PARTLY if record.state == "done" and not is_published(record) else record.state
        )
        with self._lock:
            ended = self._now()
            stages = (
                StageTime(name, max(0.0, round(end - moment, 3)))
                for (name, moment), (_, end) in pairwise([*self._stages, ("", ended)])
            )
            return AttemptRecord(
                record.id,
                record.attempt,
                record.began,
                ended,
                state,
                record.target.cloud,
                stages=tuple(stages),
                ids={one.role: one.image_id for one in record.target.images if one.image_id},
                sent=self._sent,
                replaced=self._replaced,
                problem=problem(record.error) if record.error else "",
                request_ids=tuple(self._request_ids[:MOST_REQUEST_IDS]),
            )
