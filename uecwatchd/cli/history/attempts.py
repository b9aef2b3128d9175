"""Attempts with what became of their images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from uecwatchd.ledger.history import AttemptRecord


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """A finished attempt, and the id of the image that replaced its image, empty if none did."""

    record: AttemptRecord
    replaced_by: str = ""

    @property
    def main_id(self) -> str:
        """The id that its set is known by."""
        return main_id(self.record)


def main_id(record: AttemptRecord) -> str:
    """Return the id of the machine image, or of the only member of a set without one."""
    return record.ids.get("machine") or _first(record.ids.values())


def with_replacements(records: Sequence[AttemptRecord]) -> tuple[PastAttempt, ...]:
    """Return the attempts, oldest first as they are given, with what replaced them.

    An image is replaced by a later attempt at its set on the same cloud, also if that attempt failed after
    it had deregistered the image.
    """
    successors: dict[tuple[object, ...], str] = {}
    found = []
    for record in reversed(records):
        place = (record.set_id, record.cloud)
        found.append(PastAttempt(record, _first(successors.get((place, one)) for one in record.ids.values())))
        if record.replaced:
            successors[place, record.replaced] = main_id(record)
    return tuple(reversed(found))


def _first(texts: Iterable[str | None]) -> str:
    return next((text for text in texts if text), "")
