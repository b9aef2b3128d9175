"""The rule for the older images of a set, and what stands against any removal."""

from collections.abc import Callable
from pathlib import Path

from uecwatchd.config.retention import RetentionRule
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import SetRecord
from uecwatchd.types import SetId

RuleOfFolder = Callable[[Path], RetentionRule]


def rule_of(set_id: SetId, cloud: str, ledger: Ledger, of_folder: RuleOfFolder) -> RetentionRule:
    """Return the rule for a set: of the sidecar that the image in use was published with, then its folder."""
    versions = ledger.versions.of_set(set_id, cloud)
    wishes = next((one.retention for one in versions if one.state == "current"), RetentionRule())
    return wishes.over(of_folder(Path(set_id.folder)))


def obstacle_of(record: SetRecord | None) -> str:
    """Return why nothing of a set may be removed now, empty if it may. A forgotten set has no record."""
    if record is None or record.state == "done":
        return ""
    return f"{record.name} is {record.state}: nothing leaves before the new image works"
