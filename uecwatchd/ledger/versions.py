"""Versions of sets: the images published for a set on a cloud, and the one in use.

A version is the machine image, or the only kernel or ramdisk of a set without one. It is written when its id
is published, so an image without a version was never given to anybody. Rows of images that are gone stay for
the history of the set, up to a limit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from uecwatchd.config.retention import RetentionRule
from uecwatchd.types import Role, SetId

# `current` is the one to be used. `older` and `deprecated` are still in the cloud, as far as is known.
# `withdrawn` was taken back by a person or because its files were removed, `removed` by the retention.
VersionState = Literal["current", "older", "deprecated", "withdrawn", "removed"]
IN_CLOUD: frozenset[VersionState] = frozenset({"current", "older", "deprecated"})
# Of one set on one cloud. A row takes about 200 bytes.
MOST_GONE = 100


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One published image of a set on a cloud. Times are seconds of the epoch."""

    set_id: SetId
    cloud: str
    image_id: str
    role: Role
    state: VersionState
    published: float
    since: float  #: when the state began
    replaced: float | None = None  #: when another image became the current one
    passed: bool = True  #: it has passed the checks before its publication, and nobody went back from it
    replaced_by: str = ""  #: id of the image that became current after it
    #: as its sidecar had it; the files may be gone by now
    retention: RetentionRule = field(default_factory=RetentionRule)

    @property
    def is_in_cloud(self) -> bool:
        return self.state in IN_CLOUD


class Versions(Protocol):
    """The operations on the versions, for any store. They raise what those of the ledger raise."""

    def of_set(self, set_id: SetId, cloud: str | None = None) -> tuple[VersionRecord, ...]:
        """Return the versions of a set, on one cloud or on all, the newest first."""

    def of_image(self, cloud: str, image_id: str) -> tuple[VersionRecord, ...]:
        """Return the versions that an image is of, for the sets of all hosts, ordered by set."""

    def of_cloud(self, cloud: str) -> tuple[VersionRecord, ...]:
        """Return the versions on a cloud of the sets of all hosts, ordered by set, the newest first."""

    def sets(self) -> tuple[SetId, ...]:
        """Return the sets with more than one version in a cloud, ordered."""

    def count(self) -> Mapping[tuple[str, VersionState], int]:
        """Return the number of versions by cloud and state."""

    def publish_version(self, version: VersionRecord) -> None:
        """Write the current version of its set on its cloud. The one before it becomes an older one.

        If it is the current one already, it keeps its times.
        The rows of images that are gone are limited here.
        """

    def publish_later(self, version: VersionRecord) -> None:
        """Do the same with the next transaction. Raises nothing."""

    def put_versions(self, versions: Iterable[VersionRecord]) -> None:
        """Write these versions, all or none, in place of what is known about them."""

    def drop_versions(self, set_id: SetId, cloud: str | None = None) -> None:
        """Remove all versions of a set, on one cloud or on all."""
