"""The verb `verify`: download a set from its cloud, and compare it."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing

from uecwatchd.cli.output import put, put_json
from uecwatchd.cli.program_log import progress_shown
from uecwatchd.cli.set_names import Ambiguous
from uecwatchd.clouds.connect import connect
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.delivery.verify import MemberResult
from uecwatchd.delivery.verify import verify as compared
from uecwatchd.errors import Halted, Rejected
from uecwatchd.images import digests
from uecwatchd.ledger.open import read_ledger
from uecwatchd.ledger.records import SetRecord
from uecwatchd.outputs.log import open_log
from uecwatchd.system.signals import stop_on_signals
from uecwatchd.system.text import format_size
from uecwatchd.types import DetectedCloud


def verify(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    record, before = _registered(settings, arguments.set)
    stop = stop_on_signals(code=os.EX_TEMPFAIL)
    configured = settings.clouds[record.target.cloud]
    cloud = connect(configured, uploads=settings.work.uploads, before=before, stop=stop)
    found: list[dict[str, object]] = []
    with progress_shown(open_log(os.environ, sys.stderr)) as log:
        for finding in compared(record, cloud, show=log.progress):
            log.tracker.clear()  # before a line of data, which may go to the same terminal
            found.append(_reported(finding, in_json=arguments.json))
    if arguments.json:
        put_json(found)
    return os.EX_OK


def _reported(finding: MemberResult, *, in_json: bool) -> dict[str, object]:
    """Return the fields of a finding, and print it unless all are printed as JSON in the end."""
    against = finding.source or "the ledger's digest (its file is gone, or it was made for the upload)"
    if not in_json:
        put(
            f"{finding.role:<8} {finding.image_id} equals {against}: {format_size(finding.size)}, "
            f"{digests.describe(finding.digest)}"
        )
    return {"role": finding.role, "id": finding.image_id, **digests.json_fields(finding.digest)}


def _registered(settings: Settings, name: str) -> tuple[SetRecord, Mapping[str, DetectedCloud]]:
    records: Sequence[SetRecord] = ()
    before: Mapping[str, DetectedCloud] = {}
    if ledger := read_ledger(settings.state):
        with closing(ledger):
            records, before = ledger.sets_named(name.rpartition("/")[2]), ledger.clouds()
    done = [r for r in records if r.state == "done"]
    meant = [r for r in done if name in (r.name, str(r.id))]
    if len(meant) > 1:
        raise Ambiguous.of(name, [record.id for record in meant])
    if not meant:
        raise Rejected(
            f"{name}: it is not registered",
            "the ledger has no finished set of this name",
            "See: uecwatchd status.",
        )
    record = meant[0]
    if record.target.cloud not in settings.clouds:
        why = f"it was registered on cloud {record.target.cloud}, which is not configured"
        raise Halted(f"{name}: cannot look", why, "Use the configuration it was registered with.")
    return record, before
