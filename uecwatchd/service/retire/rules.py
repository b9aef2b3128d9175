"""The rule for the older images of a set, and what stands against any removal."""

from collections.abc import Callable
from pathlib import Path

from uecwatchd.config.retention import RetentionRule
from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.standing import seen_from
from uecwatchd.types import SetId

RuleOfFolder = Callable[[Path], RetentionRule]


def rule_of(set_id: SetId, cloud: str, ledger: Ledger, of_folder: RuleOfFolder) -> RetentionRule:
    """Return the rule for a set: of the sidecar that the image in use was published with, then its folder."""
    versions = ledger.versions.of_set(set_id, cloud)
    wishes = next((one.retention for one in versions if one.state == "current"), RetentionRule())
    return wishes.over(of_folder(Path(set_id.folder)))


def may_have_rule(found: ImageSet, of_folder: RuleOfFolder) -> bool:
    """Tell if a set may have a rule by its files: a sidecar in an archive is not read here."""
    return found.packed is not None or found.sidecar.retention.over(of_folder(found.folder)).is_on


def has_rule(set_id: SetId, ledger: Ledger, of_folder: RuleOfFolder) -> bool:
    """Tell if something may have to be done with the older images of a set, on any cloud."""
    versions = [one for one in ledger.versions.of_set(set_id) if one.is_in_cloud]
    clouds = {one.cloud for one in versions if one.state != "current"}
    return any(rule_of(set_id, cloud, ledger, of_folder).is_on for cloud in clouds)


def obstacle_of(set_id: SetId, cloud: str, ledger: Ledger) -> str:
    """Return why nothing of a set may leave a cloud now, empty if it may.

    A set that is gone has no record, and nothing against it.
    """
    if set_id in ledger.holds():
        return f"{set_id.name} is held"
    if cloud in ledger.cloud_holds().get(set_id, ()):
        return f"{set_id.name} is held on cloud {cloud}"
    record = ledger.set(set_id)
    state = seen_from(record, cloud).state if record else "done"
    if record is None or state == "done":
        return ""
    return f"{record.name} is {state}: nothing leaves before the new image works"
