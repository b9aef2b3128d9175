"""The overview for programs: `status.json`, beside the page."""

from collections.abc import Mapping

from uecwatchd.errors import UecError
from uecwatchd.ledger.history import AttemptRecord
from uecwatchd.ledger.records import SetRecord
from uecwatchd.outputs import result_files
from uecwatchd.outputs.overview import Overview, choose, count_states
from uecwatchd.outputs.result_files import instant
from uecwatchd.system.text import json_text
from uecwatchd.types import ID_WORDS

OVERVIEW_VERSION = 1
# A busy team has some hundred sets. Each takes about 2 KiB in the JSON, and 1 KiB in the page.
MOST_SETS = 500


def write_overview(overview: Overview) -> bytes:
    """Return the JSON: sizes in bytes, times in UTC, null for missing values."""
    situation, chosen = overview.situation, choose(overview.situation, MOST_SETS)
    fields = {
        "version": OVERVIEW_VERSION,
        "written": instant(overview.moment),
        "host": overview.host,
        "program": overview.version,
        "running": not overview.is_last,
        "states": count_states(situation),
        "sets": [_set(record, overview) for record in chosen],
        "sets_left_out": len(situation.records) - len(chosen),
        "clouds": [_cloud(name, overview) for name in situation.clouds],
        "folders": [
            {"folder": one.path, "free_bytes": one.free_bytes, "error": _error(one.error)}
            for one in overview.folders
        ],
        "attempts": [_attempt(one) for one in overview.recent],
    }
    return (json_text(fields, ascii_only=True) + "\n").encode()


def _set(record: SetRecord, overview: Overview) -> Mapping[str, object]:
    tracked = overview.progress.get(record.id)
    progress = result_files.progress_as_json(tracked.latest, tracked.speed) if tracked else None
    return {
        "folder": record.folder,
        "name": record.name,
        "state": overview.situation.state_of(record),
        "held_since": instant(overview.situation.holds.get(record.id)),
        "last_success": instant(overview.successes.get(record.id)),
        "report": result_files.as_json(record, progress),
    }


def _cloud(name: str, overview: Overview) -> Mapping[str, object]:
    error = overview.situation.suspended.get(name)
    return {
        "name": name,
        "kind": overview.situation.clouds[name] or None,
        "usable": error is None,
        "error": _error(error),
        "asked_again": instant(overview.probes.get(name)),
    }


def _error(error: UecError | None) -> Mapping[str, str] | None:
    if error is None:
        return None
    return {"class": error.kind, "what": error.what, "why": error.why, "hint": error.hint}


def _attempt(attempt: AttemptRecord) -> Mapping[str, object]:
    return {
        "folder": attempt.set_id.folder,
        "name": attempt.set_id.name,
        "number": attempt.number,
        "began": instant(attempt.began),
        "ended": instant(attempt.ended),
        "seconds": max(0.0, round(attempt.ended - attempt.began, 3)),
        "outcome": attempt.state,
        "cloud": attempt.cloud,
        "ids": {role: attempt.ids.get(role) for role in ID_WORDS},
        "sent": attempt.sent,
        "stages": [{"name": stage.name, "seconds": stage.seconds} for stage in attempt.stages],
        "request_ids": list(attempt.request_ids),
        "problem": attempt.problem or None,
        "replaced": attempt.replaced or None,
    }
