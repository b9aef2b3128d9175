"""The names of result files, checked before any work: those of another file, and those of another set."""

from collections.abc import Iterator

from uecwatchd.errors import Rejected
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.types import SetId


def check_result_names(record: SetRecord, ledger: Ledger) -> None:
    """Raise NameTaken, or Rejected if two sets would write the same file.

    The id of `karmic` on its cloud `lab` is in `karmic.lab.emi`, and so is the id of a set `karmic.lab`.
    """
    result_files.check_names(record)
    if other := next(_others_with_its_names(record, ledger), None):
        raise Rejected(
            f"{record.name}: its result files would be those of the set {other}",
            f"the ids of a set on each of several clouds are in files such as {_shared_name(record, other)}",
            "Rename the files of one of the two sets.",
        )


def _others_with_its_names(record: SetRecord, ledger: Ledger) -> Iterator[str]:
    clouds = [target.cloud for target in record.current]
    for cloud in clouds if len(clouds) > 1 else ():
        if other := ledger.set(SetId(record.folder, f"{record.name}.{cloud}")):
            yield other.name
    stem, dot, cloud = record.name.rpartition(".")
    other = ledger.set(SetId(record.folder, stem)) if stem and dot else None
    if other and len(other.current) > 1 and cloud in (target.cloud for target in other.current):
        yield other.name


def _shared_name(record: SetRecord, other: str) -> str:
    return f"{max(record.name, other, key=len)}.emi"
