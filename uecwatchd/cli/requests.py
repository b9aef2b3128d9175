"""The verbs `retry`, `forget`, `hold` and `release`: requests about a set.

Each is written to the ledger, where the daemon finds it, and a running daemon is woken up. Without a daemon,
`forget` does all of its work itself, and takes the daemon's lock for it.
"""

import argparse
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from uecwatchd.cli.meant_set import meant_set
from uecwatchd.cli.output import put_json, say
from uecwatchd.cli.set_names import Ambiguous, NoSuchSet
from uecwatchd.cli.status.elsewhere import LookElsewhere
from uecwatchd.cli.status.rows import LedgerFacts, Row, about
from uecwatchd.cli.status.survey import Survey, survey
from uecwatchd.config.documents import did_you_mean
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.errors import Deferred
from uecwatchd.intake.sets.candidates import stem_of
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.open import open_host, open_ledger, read_ledger
from uecwatchd.ledger.records import LAST_STAGE, Request, SetRecord
from uecwatchd.ledger.standing import PARTLY, seen_from
from uecwatchd.ledger.state_folder import lock_state
from uecwatchd.outputs.result_files import place_json
from uecwatchd.outputs.wording import command, duration, moment, next_attempt
from uecwatchd.service.cleanup import clear_history, clear_traces, forget_on_cloud
from uecwatchd.service.work_folder import drop_work
from uecwatchd.system import lockfile, wakeup
from uecwatchd.system.text import shell_word
from uecwatchd.system.wakeup import UNWOKEN_SECONDS
from uecwatchd.types import SetId

Verb = Literal["retry", "forget", "hold", "release"]

# Long enough for another verb to end; a daemon keeps its lock while it runs.
LOCK_PATIENCE_SECONDS = 0.1
# State of a set without record and files.
PAST = "past"


@dataclass(frozen=True, slots=True)
class VerbEffect:
    """The effect of a verb: if there is anything to do, and the message."""

    act: bool
    sentence: str
    exit_code: int = os.EX_OK


def _effect(sentence: str) -> VerbEffect:
    return VerbEffect(act=True, sentence=sentence)


def _no_effect(sentence: str, exit_code: int = os.EX_OK) -> VerbEffect:
    return VerbEffect(act=False, sentence=sentence, exit_code=exit_code)


# --- the verbs --------------------------------------------------------------------------------------------


def _run(verb: Verb, arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    found = survey(settings, now=time.time(), look=LookElsewhere(asked=arguments.set))
    try:
        row = the_row(found, arguments.set, verb=verb, folders=settings.spool.folders)
    except NoSuchSet:
        past = _past_row(settings, arguments.set) if verb == "forget" else None
        if past is None:
            raise
        row = past
    known = found.facts_about(row)
    cloud, held = arguments.cloud or "", known.cloud_holds.get(row.id, {})
    check_cloud(row, cloud, settings.clouds)
    effect = decide_on_cloud(verb, row, cloud, held, alive=known.alive) if cloud else None
    effect = effect or decide(verb, row, alive=known.alive, held=held)
    effect = _on_its_host(effect, row, alive=known.alive)
    if effect.act:
        _act(verb, row, settings, cloud)
    say(effect.sentence)
    if arguments.json:
        place = place_json(row.id, known.host)
        fields = {"verb": verb, **place, "set": row.name, "state": row.state}
        put_json({**fields, "done": effect.act, "next": effect.sentence})
    return effect.exit_code


retry, forget, hold, release = (partial(_run, verb) for verb in get_args(Verb))


def check_cloud(row: Row, cloud: str, configured: Collection[str]) -> None:
    """Raise NoSuchSet for a cloud that a set does not go to, or that is not configured."""
    clouds = [target.cloud for target in row.record.current] if row.record else []
    clouds = clouds or sorted(configured)
    if cloud and clouds and cloud not in clouds:
        what = f"{row.name}: it does not go to cloud {cloud}{did_you_mean(cloud, clouds)}"
        raise NoSuchSet(what, f"it goes to {' and '.join(clouds)}", "Name one of these, or none for all.")


def _act(verb: Verb, row: Row, settings: Settings, cloud: str) -> None:
    host, key = row.id.host, row.id.there
    with closing(open_host(settings, host) if host else open_ledger(settings)) as ledger:
        if verb == "hold":
            ledger.put_hold(key, since=time.time(), cloud=cloud)
        elif verb == "release":
            for one in [cloud] if cloud else ["", *ledger.cloud_holds().get(key, ())]:
                ledger.drop_hold(key, cloud=one)
        elif verb == "retry":
            ledger.put_request(Request(key, "retry", cloud=cloud))
        elif host or not row.seen or not _forget_now(row, ledger, settings, cloud):
            ledger.put_request(Request(key, "forget", cloud=cloud))
    if not host:
        wakeup.wake_daemon(settings.state.dir)


def _forget_now(row: Row, ledger: Ledger, settings: Settings, cloud: str) -> bool:
    """Forget a set here and now. Returns False if a daemon runs, which has to do it."""
    try:
        lock = lock_state(settings.state.dir, patience_seconds=LOCK_PATIENCE_SECONDS)
    except Deferred:
        return False
    try:
        for request in ledger.requests():
            if request.set_id == row.id and cloud in ("", request.cloud):
                ledger.drop_request(request)
        if cloud:
            if record := ledger.set(row.id):
                ledger.put_set(forget_on_cloud(record, cloud, ledger))
            return True
        if record := ledger.set(row.id):
            clear_traces(record, ledger, builds=settings.install.builds)
            drop_work(settings.state.work_folder, record.id)
            ledger.drop_set(record.id)
        clear_history(row.id, ledger)
    finally:
        lockfile.release(lock)
    return True


# --- which set is meant -----------------------------------------------------------------------------------


def the_row(found: Survey, words: str, *, verb: Verb, folders: Sequence[Path]) -> Row:
    """Return the set with this name or file. Raises NoSuchSet or Ambiguous."""
    answers = about(found.rows, words, host=found.known.host)
    rows = [row for row in answers if row.is_set]
    if len(rows) > 1:
        raise Ambiguous.of(words, [row.id for row in rows])
    if rows:
        return rows[0]
    if answers:
        row = answers[0]
        raise NoSuchSet(f"{words}: it is in no set", f"{row.state}: {row.detail}", "See: uecwatchd status")
    if verb == "hold":
        return _future_row(found, words, folders)
    if found.troubles:
        raise found.troubles[0]
    near = did_you_mean(words, (row.name for row in found.rows if row.is_set))
    why = f"no spool folder has it{near}"
    raise NoSuchSet(f"{words}: there is no such set", why, "See what there is: uecwatchd status")


def _future_row(found: Survey, words: str, folders: Sequence[Path]) -> Row:
    """Return a row for a future set, held under its own name even if a file was named."""
    host, colon, rest = words.partition(":")
    if colon and (elsewhere := found.elsewhere.get(host)):
        return _in_folder(rest, _folders_of(elsewhere), found, host=host)
    return _in_folder(rest if colon and host == found.known.host else words, folders, found)


def _folders_of(elsewhere: LedgerFacts) -> Sequence[Path]:
    """Return the spool folders of another host. Nobody knows them but by the sets that it has had."""
    sets = {*(record.id for record in elsewhere.records), *elsewhere.holds}
    if not sets:
        why = f"no set of {elsewhere.host} is known, and so none of its spool folders"
        raise NoSuchSet("cannot hold a set that is not there yet", why, f"Hold it on {elsewhere.host}.")
    return sorted({Path(one.there.folder) for one in sets})


def _in_folder(words: str, folders: Sequence[Path], found: Survey, *, host: str = "") -> Row:
    place, _, name = words.rstrip("/").rpartition("/")
    chosen = [folder for folder in folders if not place or str(folder) == place.rstrip("/")]
    if len(chosen) != 1 or not name:
        there = [str(SetId(str(folder), name or "NAME").of_host(host)) for folder in folders]
        several = f"it is not there yet, and there are {len(folders)} spool folders"
        why = several if chosen else "that is none of the spool folders"
        named = " or ".join(map(shell_word, there))
        raise Ambiguous(f"{words}: cannot tell which folder is meant", why, f"Say {named}.")
    near = did_you_mean(name, (row.name for row in found.rows if row.is_set))
    meant = SetId(str(chosen[0]), stem_of(name)).of_host(host)
    return Row(meant, "absent", f"it is not there yet{near}")


def _past_row(settings: Settings, words: str) -> Row | None:
    """Return a row for a set of which only the history is left, if there is one. Raises Ambiguous."""
    ledger = read_ledger(settings)
    if ledger is None:
        return None
    with (
        closing(ledger),
        suppress(NoSuchSet),
        meant_set(words, ledger, settings, recorded=False) as meant,
    ):
        return Row(meant.shown, PAST, "only its history is left")
    return None


# --- what comes of it -------------------------------------------------------------------------------------


def decide_on_cloud(
    verb: Verb, row: Row, cloud: str, held: Mapping[str, float], *, alive: bool
) -> VerbEffect | None:
    """Decide what a verb does for a set on one cloud; None if the cloud makes no difference.

    `held` are the clouds that the set is held for; `alive` is True if a daemon runs.
    """
    name, release = row.title, f"{_command('release', row)} --cloud {shell_word(cloud)}"
    if verb in ("hold", "release") and row.held_since is not None:
        return _no_effect(f"{name} is held on all of its clouds, until: {_command('release', row)}")
    if verb == "hold":
        if cloud in held:
            return _no_effect(f"{name} is held on cloud {cloud} already, since {moment(held[cloud])} UTC.")
        return _effect(f"{name} is held on cloud {cloud}, and goes on elsewhere, until: {release}")
    if verb == "release":
        if cloud not in held:
            return _no_effect(f"{name} is not held on cloud {cloud}.")
        return _effect(f"{name} is held no longer on cloud {cloud}. It goes there now.")
    seen = seen_from(row.record, cloud) if row.record else None
    if verb == "forget":
        ids = [image.image_id for image in seen.target.images if image.image_id] if seen else []
        stays = f" Its images stay there: {', '.join(ids)}." if ids else ""
        again = " Its files are still there, so it starts again on that cloud." if row.files else ""
        return _effect(f"What is known of {name} on cloud {cloud} is forgotten.{stays}{again}")
    if seen and seen.awaits_cloud and row.state not in ("held", "working"):
        return _no_effect(f"{name} waits for {seen.reason} on cloud {cloud}.", os.EX_TEMPFAIL)
    if seen and row.files and row.state in (PARTLY, "done") and seen.state in _AGAIN:
        words = _AGAIN[_again_key(seen)].format(name=f"{name} on cloud {cloud}", cloud=cloud)
        return _effect(words + _later(row, alive=alive))
    return None


def decide(verb: Verb, row: Row, *, alive: bool, held: Collection[str] = ()) -> VerbEffect:
    """Decide what a verb does for a set in its state; `alive` is True if a daemon runs.

    `held` are the clouds that it is held for.
    """
    later = _later(row, alive=alive)
    if verb == "retry":
        return _retry(row, later)
    if verb == "forget":
        return _forget(row)
    if verb == "release" and row.held_since is None and held:
        return _effect(f"{row.title} is held no longer on {' and '.join(f'cloud {one}' for one in held)}.")
    return _hold(row) if verb == "hold" else _release(row, later)


def _later(row: Row, *, alive: bool) -> str:
    if row.id.is_elsewhere:
        return ""  # which `_on_its_host` says
    return "" if alive else " No daemon is running: it is done when one runs, or by: uecwatchd once"


def _on_its_host(effect: VerbEffect, row: Row, *, alive: bool) -> VerbEffect:
    """Return the effect of a verb with what its host has to do."""
    if not row.id.is_elsewhere or not effect.act:
        return effect
    when = f"sees this within {UNWOKEN_SECONDS:g} s" if alive else "does this when its service runs again"
    return replace(effect, sentence=f"{effect.sentence} Host {row.id.host} {when}.")


def _command(verb: Verb, row: Row) -> str:
    return command(verb, row.id)


def _retry(row: Row, later: str) -> VerbEffect:
    name, record = row.title, row.record
    if row.held_since is not None:
        why = f"{name} is held since {moment(row.held_since)} UTC, and is not tried before:"
        return _no_effect(f"{why} {_command('release', row)}", os.EX_TEMPFAIL)
    if row.state == "working" and record and record.stage == LAST_STAGE:  # its result is beside its files
        result = record.error.kind if record.error else "done"
        return _effect(_AGAIN[result].format(name=name, cloud=record.target.cloud))
    if row.state == "working":
        return _no_effect(f"{name} is in progress already: {row.detail}.")
    if not row.seen:
        return _no_effect(f"{name} cannot be tried: {row.detail}.", os.EX_TEMPFAIL)
    if row.to_go is not None:
        why = f"{name} waits {row.detail}; it starts automatically in {duration(row.to_go)}."
        return _no_effect(why + later, os.EX_TEMPFAIL)
    if row.state == "waiting":
        why = f"{name} waits {row.detail}. It starts automatically when that is there."
        return _no_effect(why, os.EX_TEMPFAIL)
    if record is None or row.state in ("new", "queued"):
        return _no_effect(f"{name} starts automatically: {row.detail}.{later}")
    if not row.files:
        return _no_effect(f"{name} cannot be tried: {row.detail}.", os.EX_NOINPUT)
    # The record is seen from the cloud that matters most.
    words = _AGAIN[_again_key(record) if row.state == "deferred" else row.state]
    return _effect(words.format(name=name, cloud=record.target.cloud) + later)


def _again_key(record: SetRecord) -> str:
    """Return the key of the words about a retry. A cloud that is away is asked first."""
    is_away = record.state == "deferred" and record.next_retry is None
    return "halted" if is_away else record.state


_AGAIN = {
    "done": "{name} is done: its image is registered again only if it is gone from the cloud,"
    " and the files beside it are written again.",
    PARTLY: "{name} is tried again now on the clouds that it is not done on.",
    "rejected": "{name} is tried again now, although its files have not changed.",
    "deferred": "{name} is tried again now, and if necessary for two days from now on.",
    "withdrawn": "{name} is published again.",
    "halted": "cloud {cloud} is asked now, and {name} is tried as soon as it can be used.",
}


def _forget(row: Row) -> VerbEffect:
    name, record = row.title, row.record
    if row.state == PAST:
        return _effect(f"The history of {name} is forgotten; nothing else is left of it.")
    if record is None:
        return _no_effect(f"There is no record of {name} to forget: {row.detail}.")
    if not row.seen:
        return _effect(f"{name} is forgotten as soon as its result files can be removed: {row.detail}.")
    first = f"{name} stops before its next part and is then forgotten" if row.state == "working" else ""
    ids = [image.image_id for target in record.current for image in target.images if image.image_id]
    stays = f" Its images stay in the cloud: {', '.join(ids)}." if ids else ""
    return _effect(f"{first or f'{name} is forgotten'}.{stays}{_starts_again(row)}")


def _starts_again(row: Row) -> str:
    if not row.files:
        return ""
    if row.held_since is not None:
        return f" Its files are still there, and it stays held until: {_command('release', row)}"
    return " Its files are still there, so it starts again, as if they had just been dropped."


def _hold(row: Row) -> VerbEffect:
    name = row.title
    if row.held_since is not None:
        return _no_effect(f"{name} is held already, since {moment(row.held_since)} UTC.")
    until = f"until: {_command('release', row)}"
    if row.state == "working":
        return _effect(f"{name} stops before its next part, and is held {until}")
    if row.state == "absent":
        return _effect(f"{name} is held once it comes ({row.detail}), {until}")
    return _effect(f"{name} is held ({row.state}: {row.detail}), {until}")


def _release(row: Row, later: str) -> VerbEffect:
    if row.held_since is None:
        return _no_effect(f"{row.title} is not held ({row.state}: {row.detail}).")
    return _effect(f"{row.title} is held no longer. {_from_now_on(row.otherwise or row, later)}")


def _from_now_on(row: Row, later: str) -> str:
    """Return what happens to a set without a hold."""
    record = row.record
    if not row.files or not row.seen:
        return _sentence(row.detail)
    later = later if row.needs_daemon or row.state == "waiting" else ""
    if record and record.error and record.state == row.state:
        return next_attempt(record) + later
    words = {
        "new": "It is begun.",
        "queued": "It continues where it was.",
        "working": "It continues where it was.",
        "waiting": f"It waits {row.detail}.",
        "withdrawn": "It is published again.",
    }
    return words.get(row.state, _sentence(f"it is {row.state}: {row.detail}")) + later


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."
