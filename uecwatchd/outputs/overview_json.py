"""The overview for programs: `status.json`, beside the page."""

from collections.abc import Mapping

from uecwatchd.errors import UecError
from uecwatchd.ledger.history import AttemptRecord
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.sessions import HostSession
from uecwatchd.outputs import result_files
from uecwatchd.outputs.fleet_overview import MOST_SETS
from uecwatchd.outputs.overview import Overview, choose, count_states
from uecwatchd.outputs.result_files import instant
from uecwatchd.outputs.situation import Situation
from uecwatchd.system.text import json_text
from uecwatchd.types import ID_WORDS

OVERVIEW_VERSION = 1


def write_overview(overview: Overview) -> bytes:
    """Return the JSON: sizes in bytes, times in UTC, null for missing values."""
    situation, counts = overview.everywhere, overview.count_everywhere()
    chosen = choose(situation, MOST_SETS)
    fields = {
        "version": OVERVIEW_VERSION,
        "written": instant(overview.moment),
        "host": overview.host,
        "program": overview.version,
        "running": not overview.is_last,
        "states": counts,
        "sets": [_set(record, situation, overview) for record in chosen],
        "sets_left_out": max(0, sum(counts.values()) - len(chosen)),
        "hosts": [_host(one, overview) for one in overview.fleet.hosts],
        "clouds": [_cloud(name, overview) for name in situation.clouds],
        "folders": [
            {"folder": one.path, "free_bytes": one.free_bytes, "error": _error(one.error)}
            for one in overview.folders
        ],
        "attempts": [_attempt(one, overview) for one in overview.all_recent],
    }
    return (json_text(fields, ascii_only=True) + "\n").encode()


def _set(record: SetRecord, situation: Situation, overview: Overview) -> Mapping[str, object]:
    tracked = overview.progress_of(record.id)
    progress = result_files.progress_as_json(tracked.latest, tracked.speed) if tracked else None
    return {
        **result_files.place_json(record.id, overview.fleet.host),
        "name": record.name,
        "state": situation.state_of(record),
        "held_since": instant(situation.holds.get(record.id)),
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


def _host(one: HostSession, overview: Overview) -> Mapping[str, object]:
    """Return a host with the number of its sets in each state."""
    is_own = one.host == overview.fleet.host
    counts = count_states(overview.situation) if is_own else overview.fleet.counts_of(one.host)
    return {
        "name": one.host,
        "state": one.state,
        "version": one.version or None,
        "began": instant(one.began),
        "ended": instant(one.ended),
        "states": {state: number for state, number in counts.items() if number},
    }


def _attempt(attempt: AttemptRecord, overview: Overview) -> Mapping[str, object]:
    return {
        **result_files.place_json(attempt.set_id, overview.fleet.host),
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
