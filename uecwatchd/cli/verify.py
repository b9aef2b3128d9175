"""The verb `verify`: download a set from its cloud, and compare it."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing

from uecwatchd.cli.meant_set import sets_of_name
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
from uecwatchd.ledger.standing import by_cloud
from uecwatchd.outputs.log import open_log
from uecwatchd.outputs.wording import on_cloud
from uecwatchd.system.signals import stop_on_signals
from uecwatchd.system.text import format_size
from uecwatchd.types import DetectedCloud


def verify(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    registered, before = _registered(settings, arguments.set, cloud=arguments.cloud)
    stop = stop_on_signals(code=os.EX_TEMPFAIL)
    found: list[dict[str, object]] = []
    with progress_shown(open_log(os.environ, sys.stderr)) as log:
        for record in registered:
            configured = settings.clouds[record.cloud]
            cloud = connect(configured, uploads=settings.work.uploads, before=before, stop=stop)
            for finding in compared(record, cloud, show=log.progress):
                log.tracker.clear()  # before a line of data, which may go to the same terminal
                found.append(_reported(finding, record, in_json=arguments.json))
    if arguments.json:
        put_json(found)
    return os.EX_OK


def _reported(finding: MemberResult, record: SetRecord, *, in_json: bool) -> dict[str, object]:
    """Return the fields of a finding, and print it unless all are printed as JSON in the end."""
    why = "its file is gone, or it was made for the upload"
    why = f"its file is on host {record.id.host}" if record.id.is_elsewhere else why
    against = finding.source or f"the ledger's digest ({why})"
    if not in_json:
        put(
            f"{finding.role:<8} {finding.image_id}{on_cloud(record)} equals {against}: "
            f"{format_size(finding.size)}, {digests.describe(finding.digest)}"
        )
    fields = {"cloud": record.cloud, "role": finding.role, "id": finding.image_id}
    return {**fields, **digests.json_fields(finding.digest)}


def _registered(
    settings: Settings, name: str, *, cloud: str | None
) -> tuple[list[SetRecord], Mapping[str, DetectedCloud]]:
    """Return the set as seen from each cloud with its image, or from this one, and the known clouds."""
    named: Sequence[SetRecord] = ()
    before: Mapping[str, DetectedCloud] = {}
    if ledger := read_ledger(settings):
        with closing(ledger):
            named, before = sets_of_name(name, ledger), ledger.clouds()
    seen = [(one, view) for one in named for view in by_cloud(one) if cloud in (None, view.cloud)]
    done = [(one, view) for one, view in seen if view.state == "done"]
    if len(meant := {one.id for one, _ in done}) > 1:
        raise Ambiguous.of(name, sorted(meant))
    if not done:
        where = f" on cloud {cloud}" if cloud else ""
        raise Rejected(
            f"{name}: it is not registered{where}",
            f"the ledger has no set of this name that is done{where}",
            "See: uecwatchd status.",
        )
    if unknown := next((view.cloud for _, view in done if view.cloud not in settings.clouds), None):
        why = f"it was registered on cloud {unknown}, which is not configured"
        raise Halted(f"{name}: cannot look", why, "Use the configuration it was registered with.")
    return [view for _, view in done], before
