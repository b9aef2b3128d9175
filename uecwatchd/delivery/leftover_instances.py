"""The end of instances of test boots: the one of a finished boot, and those left behind.

Only the holder of the claim on the account's boots may do this: then each of its boots in the ledger is over.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.dialects import Dialect
from uecwatchd.clouds.errors.connection import quoted
from uecwatchd.clouds.instances import (
    TERMINATED,
    CloudInstance,
    find_instance,
    list_instances,
    terminate,
)
from uecwatchd.delivery.boot_judgement import UNLISTED_SECONDS
from uecwatchd.errors import Deferred
from uecwatchd.ledger.boots import BootRecord, Boots
from uecwatchd.types import SetId

# Minutes on a busy node; longer is a matter for the cloud's administrator.
END_SECONDS = 300.0
LOOK_SECONDS = (0.2, 0.5, 1.0, 2.0)
LONGEST_LOOK_SECONDS = 5.0
# For how long a requested instance without an id is looked for: its request may still be under way.
UNSEEN_SECONDS = 3600.0
UNKNOWN_SET = SetId("/", "unknown")


@dataclass(frozen=True, slots=True)
class BootCleaner:
    """Tools to end the instances of one cloud; see `BootTools` for the fields."""

    cloud: Cloud
    boots: Boots
    mark: str
    tell: Callable[[str], None]
    sleep: Callable[[float], None]
    now: Callable[[], float]
    monotonic: Callable[[], float]

    def clean_up(self, *, with_unknown: bool = False) -> None:
        """Terminate all instances that were left behind, and wait until they have ended.

        With `with_unknown` also those whose token is ours and that no ledger knows, after it was lost.
        Raises Deferred while one does not end.
        """
        left = self.boots.open(self.cloud.name)
        if not left and not with_unknown:
            return
        listed = list_instances(self.cloud)
        for boot in left:
            self._end_left(boot, listed)
        if with_unknown:
            known = {boot.token for boot in self.boots.open() if self._may_be_at_work(boot)}
            for one in listed:
                if one.token.startswith(self.mark) and one.token not in known and one.state != TERMINATED:
                    self._end_unknown(one)

    def _end_left(self, boot: BootRecord, listed: Iterable[CloudInstance]) -> None:
        mine = [one for one in listed if belongs_to(one, boot, self.cloud.dialect)]
        alive = [one for one in mine if one.state != TERMINATED]
        if len(alive) == 1:
            self.tell(f"terminating {alive[0].id}, which was left from a test boot of {boot.image_id}")
            end_instance(replace(boot, instance_id=alive[0].id), self)
        elif alive:  # one of them is ours, and nothing tells which
            ids = " or ".join(one.id for one in alive)
            self.tell(f"{ids} was left from a test boot of {boot.image_id}: terminate it by hand")
            self.boots.drop(boot)
        elif mine or not self._may_appear(boot):
            self.boots.drop(boot)

    def _may_appear(self, boot: BootRecord) -> bool:
        """Tell if an instance that is not listed may still be."""
        age = self.now() - boot.began
        return 0 <= age < (UNLISTED_SECONDS if boot.instance_id else UNSEEN_SECONDS)

    def _may_be_at_work(self, boot: BootRecord) -> bool:
        """Tell if a boot is one of ours, or may be under way under another name of the account.

        A name that was taken out of the configuration has nobody else to end its instances.
        """
        return boot.cloud == self.cloud.name or self.now() - boot.began < UNSEEN_SECONDS

    def _end_unknown(self, one: CloudInstance) -> None:
        boot = BootRecord(one.token, self.cloud.name, one.image_id, UNKNOWN_SET, self.now(), (), one.id)
        self.boots.put(boot)
        self.tell(f"terminating {one.id}, which has a token of this host and is in no ledger")
        end_instance(boot, self)


def belongs_to(instance: CloudInstance, boot: BootRecord, dialect: Dialect) -> bool:
    """Tell by id, token or, where no token is shown, image if an instance is that of a boot.

    An image on test is new or private, so that nobody else starts it; what ran before is none of ours.
    """
    if boot.instance_id:
        return instance.id == boot.instance_id
    if instance.token or dialect.token_listed:
        return instance.token == boot.token
    return instance.image_id == boot.image_id and bool(instance.id) and instance.id not in boot.others


def end_instance(boot: BootRecord, cleaner: BootCleaner) -> None:
    """Terminate the instance of a boot, wait until it has ended, and remove the boot from the ledger.

    Raises Deferred if it does not end: then the ledger keeps it.
    """
    known, began, pauses = False, cleaner.monotonic(), iter(LOOK_SECONDS)
    while True:
        known = known or terminate(cleaner.cloud, boot.instance_id)
        instance = find_instance(cleaner.cloud, boot.instance_id)
        elapsed = cleaner.monotonic() - began
        # One that the cloud forgets has ended; one that it has just started may not be listed yet.
        if instance.state == TERMINATED if instance else known or elapsed >= UNLISTED_SECONDS:
            break
        if elapsed >= END_SECONDS:
            raise _does_not_end(cleaner.cloud, instance, boot)
        cleaner.sleep(next(pauses, LONGEST_LOOK_SECONDS))
    cleaner.tell(f"{boot.instance_id} is terminated")
    cleaner.boots.drop(boot)


def _does_not_end(cloud: Cloud, instance: CloudInstance | None, boot: BootRecord) -> Deferred:
    state = quoted(instance.state) if instance else "not listed"
    return Deferred(
        f"cloud {cloud.name}, terminating {boot.instance_id}",
        f"it is still {state} after {END_SECONDS:.0f} s",
        "Ask its administrator what keeps it; no other test boot begins there before it has ended.",
    )
