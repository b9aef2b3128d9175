"""Requests of people: to a running daemon, to a stopped one, and as different users."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.clock import Clocks
from tests.support.daemon import daemon_process, daemon_thread, opened_service, stop_daemon
from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.bundle.upload_slots import UploadSlots
from uecwatchd.cli.requests import decide, decide_on_cloud
from uecwatchd.cli.status.rows import Row
from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.availability import CloudAvailability
from uecwatchd.config.load import load
from uecwatchd.config.records import WorkSettings
from uecwatchd.demo.material import RealSet
from uecwatchd.errors import CloudAway, Halted
from uecwatchd.events import Event, Kind, Progress, Tee
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.outbox import Announced
from uecwatchd.ledger.records import BundleRecord, Failure, MemberRecord, Request, SetRecord, TargetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.ledger.standing import PARTLY, combine, seen_from
from uecwatchd.outputs.ledger_progress import progress_in_ledger
from uecwatchd.outputs.progress import ProgressTracker
from uecwatchd.service.attempt.boot import BOOT_STAGE
from uecwatchd.service.attempt.context import AttemptTools
from uecwatchd.service.cleanup import is_used_only_by
from uecwatchd.service.daemon import Service
from uecwatchd.service.interrupts import Interrupts
from uecwatchd.service.loop import LONGEST_PAUSE_SECONDS
from uecwatchd.service.probing import ProbeWriter
from uecwatchd.service.reporting import Reporting
from uecwatchd.service.requests import (
    OpenRequests,
    Requests,
    events_between,
)
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.spooler import Spooler
from uecwatchd.system import clocks as clocks_module
from uecwatchd.system import failpoints
from uecwatchd.types import ContentDigest, FileStamp, SetId

# The next probe of a cloud is 27 s away at least: by so slow a clock, longer than `until` has patience.
SLOW = 20 / PATIENCE_SECONDS
MEMBER = MemberRecord("machine", "karmic.img", 512, FileStamp(1, 2, 3, 4), ContentDigest("ab" * 32))
KARMIC, LUCID = SetId("/s", "karmic"), SetId("/s", "lucid")
RECORD = SetRecord(
    SetId("/s", "karmic"),
    "stamp",
    "deferred",
    1.0,
    members=(MEMBER,),
    cloud="c",
    targets=(TargetRecord("c"),),
)
BUNDLE = BundleRecord(
    "c",
    "b",
    "f" * 64,
    "machine",
    ContentDigest("ab" * 32),
    "karmic-1",
    "planned",
    made_for=KARMIC,
)


def drop(host: Host, made: RealSet, name: str, *, more: int = 0) -> None:
    """A set of this name, with `more` MiB at its end that nothing could shorten."""
    names = [f"{name}.{ending}" for ending in ("img", "vmlinuz", "initrd")]
    with (host.folder / "image").open("wb") as image:
        image.write(made.machine.read_bytes())
        image.write(os.urandom(more << 20))
    host.drop(host.folder / "image", made.kernel, made.ramdisk, names=names)


@contextmanager
def daemon(host: Host) -> Iterator[None]:
    with daemon_process(host) as process:
        yield
        stop_daemon(process)


@contextmanager
def daemon_by(clocks: Clocks, host: Host, listener: Recorder) -> Iterator[Service]:
    with (
        opened_service(host, listener, now=clocks.now, monotonic=clocks.monotonic) as service,
        daemon_thread(service),
    ):
        yield service


def state(host: Host, name: str) -> str:
    return str(host.report(name)["state"]) if (host.spool / f"{name}.uec.json").exists() else ""


def said(host: Host, *words: str, code: int = 0) -> str:
    return host.ask(*words, code=code)[1]


def once(host: Host, listener: Recorder) -> list[tuple[str, int]]:
    """State and number of attempts of each set after everything was done that can be."""
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        records = Service(settings, listener=listener, ledger=book).once()
    return [(record.state, record.attempt) for record in records]


def row(host: Host, name: str) -> dict[str, Any]:
    (found,) = json.loads(host.ask("status", name, "--json")[0])
    return dict(found)


# --- of a running daemon ----------------------------------------------------------------------------------


def test_a_set_put_off_in_an_outage_is_tried_at_once_when_somebody_asks(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    drop(host, small_set, "karmic")
    host.cloud.stop()
    clocks = Clocks()
    with daemon_by(clocks, host, listener):
        until(lambda: state(host, "karmic") == "deferred", "the outage to be met")
        until(lambda: bool(row(host, "karmic")["cloud_asked"]), "the time of the next probe to be known")
        assert row(host, "karmic")["next_retry"] is None, "it waits for the cloud, not for a time"
        clocks.slow_down(SLOW)
        host.cloud.start()
        # The report is written a moment before the ledger, which is what the verb asks.
        until(lambda: "is asked now" in said(host, "retry", "karmic"), "the end of the attempt")
        until((host.spool / "karmic.emi").exists, "the EMI")
        with closing(open_ledger(host.state)) as book:
            until(lambda: not book.requests(), "the request to be done with")
        assert "is done" in said(host, "retry", "karmic.img")
        until(lambda: host.report("karmic")["attempt"] == 3, "the third attempt")
        until(lambda: state(host, "karmic") == "done", "its end")
    assert len(host.cloud.calls("RegisterImage")) == 3


def test_a_set_held_during_its_upload_is_stopped_and_goes_on_after_its_release(
    host: Host, small_set: RealSet
) -> None:
    drop(host, small_set, "karmic", more=40)
    host.configure(host.config.read_text() + "[work]\nuploads = 1\n")
    host.cloud.faults.arm("slow", 0.4)

    def machine_parts() -> list[str]:
        return [seen.path for seen in host.cloud.calls("PutObject") if "karmic-" in seen.path]

    with daemon(host):
        until(lambda: bool(machine_parts()), "the first part")
        assert "stops before its next part" in said(host, "hold", "karmic")
        until(lambda: row(host, "karmic")["state"] == "held", "the set to be held")
        assert state(host, "karmic") == "queued"
    sent = len(machine_parts())
    assert sent < 4, "of five parts and a manifest"
    host.cloud.faults.clear()
    with daemon(host):
        assert "is not tried before" in said(host, "retry", "karmic", code=75)
        found = row(host, "karmic")
        assert (found["state"], len(machine_parts())) == ("held", sent)
        assert found["held_since"]
        assert "continues where it was" in said(host, "release", "karmic")
        until((host.spool / "karmic.emi").exists, "the EMI")
    assert len(machine_parts()) == len(set(machine_parts())), "no part is sent twice"
    log = (host.spool / "karmic.uec.log").read_text()
    assert "stopped at: deliver the machine image: it is held" in log


def test_a_set_at_work_is_stopped_before_it_is_forgotten_and_begins_again(
    host: Host, small_set: RealSet
) -> None:
    drop(host, small_set, "karmic", more=20)
    host.configure(host.config.read_text() + "[work]\nuploads = 1\n")
    host.cloud.faults.arm("slow", 0.4)
    with daemon(host):
        until(lambda: len(host.cloud.calls("RegisterImage")) == 2, "kernel and ramdisk")
        answer = said(host, "forget", "karmic")
        assert "stops before its next part and is then forgotten" in answer
        assert "starts again" in answer
        host.cloud.faults.clear()
        until((host.spool / "karmic.emi").exists, "the EMI")
        until(lambda: state(host, "karmic") == "done", "its end")
    assert host.report("karmic")["attempt"] == 1
    assert "stopped at" not in (host.spool / "karmic.uec.log").read_text(), "the old log is gone"
    with closing(open_ledger(host.state)) as book:
        (attempt,) = book.history.attempts()
    assert attempt.state == "done", "the old history is gone"
    assert len(host.cloud.calls("RegisterImage")) == 3


def test_a_halted_cloud_is_asked_at_once_when_somebody_asks(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    eucarc = host.cloud.eucarc
    text = eucarc.read_text()
    eucarc.write_text(text.replace("EC2_SECRET_KEY=", "EC2_SECRET_KEY=wrong"))
    drop(host, small_set, "karmic")
    clocks = Clocks()
    with daemon_by(clocks, host, listener):
        until(lambda: state(host, "karmic") == "halted", "the refusal")
        clocks.slow_down(SLOW)
        eucarc.write_text(text)
        # The report is written a moment before the ledger, which is what the verb asks.
        until(lambda: "is asked now" in said(host, "retry", "karmic"), "the end of the attempt")
        until((host.spool / "karmic.emi").exists, "the EMI")


def test_an_idle_daemon_wakes_up_at_once_and_without_the_pipe_at_its_next_tick(
    host: Host, listener: Recorder
) -> None:
    host.configure(host.config.read_text().replace("scan_every = 5", "scan_every = 600"))
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        service = Service(settings, listener=listener, ledger=book)
        with daemon_thread(service):
            until(lambda: (host.state / "wakeup").exists(), "the pipe")
            since = time.monotonic()
            for verb in ("hold", "release", "hold"):
                count = len(listener.sentences(Kind.ASKED))
                said(host, verb, "karmic")
                until(
                    lambda count=count: len(listener.sentences(Kind.ASKED)) > count,
                    "the daemon to hear of it",
                )
            assert time.monotonic() - since < LONGEST_PAUSE_SECONDS
            (host.state / "wakeup").unlink()
            said(host, "release", "karmic")
            until(lambda: "karmic: released, on request" in listener.sentences(Kind.ASKED)[2:], "the tick")


# --- of a stopped one -------------------------------------------------------------------------------------


def test_without_a_daemon_the_next_one_finds_what_was_asked_for(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    drop(host, small_set, "karmic")
    (host.spool / "karmic.toml").write_text('on_existing = "fail"\nkernel = "eki-00000000"')
    assert once(host, listener) == once(host, listener) == [("rejected", 1)]
    answer = said(host, "retry", "karmic")
    assert "although its files have not changed" in answer
    assert "No daemon is running" in answer
    assert row(host, "karmic")["state"] == "queued"
    assert once(host, listener) == once(host, listener) == [("rejected", 2)], "once, and not at every start"


def test_retry_tries_a_rejected_set_again(host: Host, listener: Recorder) -> None:
    (host.spool / "karmic.toml").write_text("nonsense")
    assert once(host, listener) == once(host, listener) == [("rejected", 1)]
    said(host, "retry", "karmic")
    assert once(host, listener) == once(host, listener) == [("rejected", 2)]


def test_a_set_that_is_not_there_yet_can_be_held(host: Host, small_set: RealSet, listener: Recorder) -> None:
    assert "once it comes" in said(host, "hold", "karmic.img")
    assert "already" in said(host, "hold", "karmic")
    assert row(host, "karmic")["detail"].endswith("there is nothing with this name yet")
    drop(host, small_set, "karmic")
    assert once(host, listener) == []
    assert host.outputs() == []
    found = row(host, "karmic")
    assert found["state"] == "held"
    assert "complete: to be registered" in found["detail"]
    assert "held no longer" in said(host, "release", "karmic")
    assert "is not held" in said(host, "release", "karmic")
    assert once(host, listener) == [("done", 1)]
    assert (host.spool / "karmic.emi").exists()


def test_a_finished_set_is_reported_again_and_a_forgotten_one_leaves_only_its_image(
    host: Host, small_set: RealSet, listener: Recorder
) -> None:
    drop(host, small_set, "karmic")
    assert once(host, listener) == [("done", 1)]
    emi = (host.spool / "karmic.emi").read_text().strip()
    with closing(open_ledger(host.state)) as book:
        book.outbox.announce([], {SetId(str(host.spool), "karmic"): Announced("done", 1.0)})
    (host.spool / "karmic.emi").unlink()
    said(host, "retry", "karmic")
    assert once(host, listener) == [("done", 2)]
    assert (host.spool / "karmic.emi").read_text().strip() == emi
    (host.spool / "karmic.eri").unlink()
    (host.spool / "karmic.eri").symlink_to("/etc/motd")
    answer = json.loads(host.ask("forget", "karmic", "--json")[0])
    assert (answer["done"], answer["set"], answer["state"]) == (True, "karmic", "done")
    assert "stay in the cloud" in answer["next"]
    assert emi in answer["next"]
    assert host.outputs() == ["karmic.eri"], "what is not ours is not touched"
    with closing(open_ledger(host.state)) as book:
        assert book.sets() == ()
        assert book.requests() == ()
        assert book.digest(_stamp(host.spool / "karmic.img"), "file") is None
        assert [b.state for b in book.bundles("default")] == ["registered"] * 3
        assert (book.history.names(), book.outbox.announced()) == ((), {})
    (host.spool / "karmic.eri").unlink()
    assert once(host, listener) == [("done", 1)]
    assert (host.spool / "karmic.emi").read_text().strip() == emi
    assert len(host.cloud.calls("RegisterImage")) == 3


def _stamp(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)


# --- which set is meant, and which user asks --------------------------------------------------------------


def test_a_name_in_two_folders_is_distinguished_by_its_folder(host: Host) -> None:
    second = host.folder / "second"
    second.mkdir()
    host.configure(host.config.read_text().replace(f'["{host.spool}"]', f'["{host.spool}", "{second}"]'))
    for folder in (host.spool, second):
        (folder / "karmic.toml").write_text('machine = "karmic.img"')
    answer = said(host, "hold", "karmic", code=64)
    assert f"Say {host.spool}/karmic or {second}/karmic" in answer
    assert f"until: uecwatchd release {second}/karmic" in said(host, "hold", f"{second}/karmic")
    table = host.ask("status")[0].splitlines()
    assert [line.split()[0] for line in table[1:]] == [f"{host.spool}:", "karmic", f"{second}:", "karmic"]
    assert f"in {second}: karmic.toml" in host.ask("status", f"{second}/karmic")[0]
    states = {r["folder"]: r["state"] for r in json.loads(host.run("status", "karmic", "--json").stdout)}
    assert states[str(second)] == "held"
    assert states[str(host.spool)] != "held"
    assert "spool folders" in said(host, "hold", "lucid", code=64)
    assert "which folder" in said(host, "hold", "/nowhere/lucid", code=64)


def test_a_held_set_of_a_folder_that_is_gone_is_not_taken_for_its_namesake(host: Host) -> None:
    second = host.folder / "second"
    second.mkdir()
    host.configure(host.config.read_text().replace(f'["{host.spool}"]', f'["{host.spool}", "{second}"]'))
    (host.spool / "karmic.toml").write_text('machine = "karmic.img"')
    said(host, "hold", f"{second}/karmic")
    second.rmdir()
    data, talk = host.ask("status", code=75)
    assert "its folder cannot be scanned: it is not there: deleted, or not mounted" in data
    assert f"{second}: cannot open the spool folder" in talk
    assert f"{second}/karmic" in said(host, "release", "karmic", code=64)
    assert "cannot be tried" not in said(host, "retry", f"{second}/karmic", code=75), (
        "it is held first of all"
    )
    assert "Its folder cannot be scanned" in said(host, "release", f"{second}/karmic")


def test_a_name_that_is_not_utf_8_is_asked_for_as_it_is_and_as_it_is_shown(host: Host) -> None:
    Path(os.fsdecode(os.fsencode(host.spool) + b"/kar\xffmic.img")).write_bytes(b"x")
    for words in ("kar\udcffmic.img", r"kar\xffmic.img"):
        assert "a name that is not UTF-8" in host.ask("status", words)[0]
        (found,) = json.loads(host.ask("status", words, "--json")[0])
        assert found["name"] == r"kar\xffmic.img"
        assert "a name that is not UTF-8" in said(host, "hold", words, code=66)
    assert r"kar\xfe is held once it comes" in said(host, "hold", "kar\udcfe")
    said(host, "release", "kar\udcfe")
    assert "karmic" not in host.ask("status", "kar\udcfe", code=66)[0]


@pytest.mark.parametrize("verb", ["retry", "forget", "release"])
def test_a_name_that_is_not_there_is_answered_with_the_nearest(host: Host, verb: str) -> None:
    (host.spool / "karmic.toml").write_text('machine = "karmic.img"')
    assert "did you mean karmic?" in said(host, verb, "karmik", code=66)


def test_what_is_compared_with_the_cloud_is_named_with_its_folder_where_two_have_the_name(host: Host) -> None:
    with closing(open_ledger(host.state)) as book:
        for folder in ("/a", "/b"):
            book.put_set(
                replace(
                    RECORD,
                    id=SetId(folder, "karmic"),
                    state="done",
                    cloud="elsewhere",
                    targets=(TargetRecord("elsewhere"),),
                )
            )
    assert "Say /a/karmic or /b/karmic" in said(host, "verify", "karmic", code=64)
    assert "cloud elsewhere, which is not configured" in said(host, "verify", "/b/karmic", code=78)


def test_a_file_in_no_set_cannot_be_retried(host: Host) -> None:
    (host.spool / "notes.txt").write_text("hello")
    assert "not a disk image" in said(host, "retry", "notes.txt", code=66)


def test_root_leaves_nothing_behind_that_the_service_cannot_use(host: Host, small_set: RealSet) -> None:
    drop(host, small_set, "karmic")
    assert host.run_as_nobody("once").returncode == 0
    for words in (["hold", "lucid"], ["retry", "karmic"], ["status"]):
        assert host.run(*words).returncode == 0
    assert {path.stat().st_uid for path in host.state.iterdir()} == {65534}
    again = host.run_as_nobody("once")
    assert again.returncode == 0, again.stderr
    assert host.report("karmic")["attempt"] == 2
    assert host.run("forget", "karmic").returncode == 0
    assert host.outputs() == [], "root removes what the service has put there"


def test_a_user_without_write_access_to_the_ledger_is_told_so(host: Host) -> None:
    (host.spool / "karmic.toml").write_text('machine = "karmic.img"')
    host.run("once")
    host.folder.chmod(0o755)
    ended = host.run_as_nobody("hold", "karmic")  # makes the folder nobody's, but not what is in it
    assert ended.returncode == 77, ended.stderr
    assert "Try: sudo uecwatchd hold karmic" in ended.stderr


@pytest.mark.parametrize(("closed", "verb"), [("state", "log"), ("configuration", "status")])
def test_a_user_without_read_access_is_told_about_the_result_files(
    host: Host, closed: str, verb: str
) -> None:
    (host.spool / "karmic.toml").write_text('machine = "karmic.img"')
    host.run("once")
    host.folder.chmod(0o755)
    if closed == "configuration":
        host.config.chmod(0o600)
    ended = host.run_as_nobody(verb, "a b")  # makes the state directory nobody's, but not what is in it
    assert ended.returncode == 77, ended.stderr
    hint = f"Try: sudo uecwatchd {verb} 'a b'; or read the files beside yours: NAME.uec.error"
    assert hint in ended.stderr
    assert "chown" not in ended.stderr
    assert "chgrp" not in ended.stderr


# --- rules ------------------------------------------------------------------------------------------------

DEFERRED = Row(SetId("/s", "karmic"), "deferred", "cloud away", RECORD, ("karmic.img",))


@pytest.mark.parametrize(
    ("row", "act", "words"),
    [
        (replace(DEFERRED, record=replace(RECORD, next_retry=9.0)), True, "for two days from now on"),
        (DEFERRED, True, "cloud c is asked now"),
        (replace(DEFERRED, state="rejected", record=replace(RECORD, state="rejected")), True, "again now"),
        (replace(DEFERRED, state="halted", record=replace(RECORD, state="halted")), True, "cloud c is asked"),
        (replace(DEFERRED, state="done", record=replace(RECORD, state="done")), True, "only if it is gone"),
        (replace(DEFERRED, state="rejected", record=replace(RECORD, state="waiting")), True, "again now"),
        (replace(DEFERRED, state="rejected", record=replace(RECORD, state="done")), True, "again now"),
        (replace(DEFERRED, held_since=1.0), False, "uecwatchd release /s/karmic"),
        (replace(DEFERRED, state="working", detail="upload"), False, "in progress already: upload"),
        (
            replace(DEFERRED, state="working", record=replace(RECORD, stage="publish")),
            True,
            "only if it is gone",
        ),
        (
            replace(DEFERRED, state="waiting", detail="for it to settle", to_go=3.2),
            False,
            "automatically in 3 s",
        ),
        (replace(DEFERRED, state="waiting", detail="for a kernel"), False, "waits for a kernel"),
        (replace(DEFERRED, state="new", record=None), False, "starts automatically"),
        (replace(DEFERRED, files=(), detail="its files were removed"), False, "files were removed"),
    ],
    ids=[
        *(
            "deferred",
            "away",
            "rejected",
            "halted",
            "done",
            "spoiled while it waited",
            "spoiled when done",
            "held",
            "at work",
            "at the end of its work",
            "too young",
            "waiting",
            "new",
            "gone",
        ),
    ],
)
def test_whether_a_set_can_be_tried_again(row: Row, act: bool, words: str) -> None:  # noqa: FBT001
    verdict = decide("retry", row, alive=True)
    assert verdict.act is act
    assert words in verdict.sentence


@pytest.mark.parametrize(
    ("cloud", "words"),
    [
        ("a", "karmic on cloud a is done: its image"),
        ("b", "karmic on cloud b is tried again now, although"),
        ("away", "cloud away is asked now, and karmic on cloud away is tried"),
    ],
)
@pytest.mark.parametrize("state", [PARTLY, "done"], ids=["partly", "done without those of best effort"])
def test_a_retry_on_one_cloud_tells_what_happens_there(state: str, cloud: str, words: str) -> None:
    effect = decide_on_cloud("retry", on_several(state), cloud, {}, alive=False)
    assert effect is not None
    assert effect.act
    assert effect.sentence.startswith(words)
    assert effect.sentence.endswith("or by: uecwatchd once")


def test_a_set_that_is_booted_on_a_cloud_is_not_tried_again_there() -> None:
    effect = decide_on_cloud("retry", on_several(PARTLY), "boots", {}, alive=True)
    assert effect is not None
    assert (effect.act, effect.exit_code) == (False, os.EX_TEMPFAIL)
    assert effect.sentence == "karmic waits for the test boot of emi-1 on cloud boots."


def on_several(state: str) -> Row:
    """A set that is done on cloud a, and in another state on each of the others."""
    places = {"a": "done", "away": "deferred", "b": "rejected", "boots": "waiting"}
    targets = (TargetRecord(name, place=place) for place, name in enumerate(places))
    record = replace(RECORD, cloud="a", targets=tuple(targets))
    for name, there in places.items():
        record = replace(seen_from(record, name), state=there)  # type: ignore[arg-type]
    record = replace(record, stage=BOOT_STAGE, reason="the test boot of emi-1")
    return replace(DEFERRED, state=state, record=combine(record))


@pytest.mark.parametrize(
    ("state", "files", "words"),
    [
        ("rejected", ("a",), "It is tried again when its files change, or after: uecwatchd retry /s/karmic"),
        ("deferred", ("a",), "It is tried again at 1970-01-01 00:00:09 UTC"),
        ("halted", ("a",), "as soon as the cloud can be used"),
        ("done", ("a",), "It is done: told."),
        ("waiting", ("a",), "It waits told."),
        ("queued", ("a",), "It continues where it was."),
        ("new", ("a",), "It is begun."),
        ("absent", (), "Told."),
    ],
)
def test_a_release_says_what_happens_to_the_set(state: str, files: tuple[str, ...], words: str) -> None:
    error = Failure(state, "w", "y", "H.") if state in ("rejected", "deferred", "halted") else None
    record = replace(RECORD, state=state, error=error, next_retry=9.0)  # type: ignore[arg-type]
    otherwise = replace(DEFERRED, state=state, detail="told", record=record, files=files)
    row = replace(otherwise, state="held", held_since=1.0, otherwise=otherwise)
    assert words in decide("release", row, alive=True).sentence


def test_only_a_bundle_under_way_that_no_other_set_needs_is_forgotten_with_its_set() -> None:
    other = replace(RECORD, id=LUCID, members=(replace(MEMBER, digest=ContentDigest("cd" * 32)),))
    assert is_used_only_by(BUNDLE, RECORD, [other])
    assert not is_used_only_by(BUNDLE, RECORD, [replace(other, members=(MEMBER,))])
    assert not is_used_only_by(replace(BUNDLE, made_for=LUCID), RECORD, [])
    assert not is_used_only_by(replace(BUNDLE, state="registering"), RECORD, [])
    assert not is_used_only_by(replace(BUNDLE, state="registered"), RECORD, [])


def test_holds_and_requests_to_forget_stop_what_is_at_work(tmp_path: Path) -> None:
    interrupts = Interrupts()
    with closing(open_ledger(tmp_path)) as book:
        requests = Requests(book, interrupts, SetStates(book))
        assert not requests.changed()
        book.put_hold(KARMIC, since=1.0)
        book.put_request(Request(LUCID, "forget"))
        assert requests.changed()
        requests.update()
        assert not requests.changed()
    assert interrupts.reason(KARMIC) == "it is held"
    assert interrupts.reason(LUCID) == "it is to be forgotten"
    assert interrupts.reason(SetId("/t", "karmic")) == ""


def test_what_is_asked_for_is_reported_once() -> None:
    asked = OpenRequests(
        (Request(KARMIC, "retry", 1), Request(KARMIC, "retry", 2)),
        {SetId("/s", "a"): 1.0},
    )
    answer = [event.sentence for event in events_between(OpenRequests(), asked)]
    assert answer == [
        "a: held back until it is released, on request",
        "karmic: to be tried again, on request",
    ]
    assert not list(events_between(asked, asked))
    assert [e.sentence for e in events_between(asked, OpenRequests())] == ["a: released, on request"]


class AsksAtTheEnd(Recorder):
    """Asks for a set again after its files appeared, and goes on when the loop has read that."""

    def __init__(self, book: Ledger, key: SetId) -> None:
        super().__init__()
        self.book, self.key = book, key
        self.asked, self.read = threading.Event(), threading.Event()

    def tell(self, event: Event) -> None:
        super().tell(event)
        if event.kind is Kind.DONE and not self.asked.is_set():
            self.book.put_request(Request(self.key, "retry"))
            self.asked.set()
            assert self.read.wait(60)


def test_a_request_made_after_an_attempt_began_is_not_answered_by_it(host: Host) -> None:
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    (host.spool / "karmic.img").write_bytes(bytes(4096))
    settings = load(host.config, environ={})
    key, clock = SetId(str(host.spool), "karmic"), iter(range(1_000_000, 2_000_000, 100))
    with closing(open_ledger(settings.state.dir)) as book:
        told = AsksAtTheEnd(book, key)
        tools = AttemptTools(
            book,
            settings.state.dir,
            CloudAccess(settings.clouds, uploads=1, bucket="images"),
            Reporting(told),
            threading.Event(),
            work=WorkSettings(),
            slots=UploadSlots(1),
            configured_bucket="images",
            clocks=clocks_module.Clocks(monotonic=lambda: float(next(clock))),
        )
        spooler = Spooler(
            settings,
            states=SetStates(book),
            tools=tools,
            ended=lambda: None,
        )
        spooler.scan()  # its files are new
        spooler.scan()  # they have settled
        assert told.asked.wait(60)
        spooler.scan()
        told.read.set()
        spooler.drain()
        spooler.scan()
        spooler.drain()
        spooler.close()
        record = book.set(key)
        assert record
        assert (record.state, record.attempt) == ("done", 2)
        assert book.requests() == ()


def test_a_retry_is_granted_as_soon_as_the_error_is_beside_the_files(host: Host, listener: Recorder) -> None:
    (host.spool / "karmic.toml").write_text('kernel = "eki-00000000"\nconvert = "keep"\n')
    (host.spool / "karmic.img").write_bytes(bytes(4096))
    settings = load(host.config, environ={})
    answers = list[str]()

    def cross(moment: str) -> None:
        if moment == "after place .uec.error" and not answers:
            answers.append(host.run("retry", "karmic").stderr)

    failpoints.listen(cross)
    try:
        with (
            closing(open_ledger(settings.state.dir)) as book,
            daemon_thread(Service(settings, listener=listener, ledger=book)),
        ):
            until(lambda: bool(answers), "the error beside the files")
            again = "karmic is tried again now, although its files have not changed.\n"
            assert answers == [again], "it is in progress, but its result is known"
            until(lambda: [record.attempt for record in book.sets()] == [2], "another attempt")
    finally:
        failpoints.listen(lambda _: None)


def test_a_retry_of_a_set_at_work_waits_for_its_end_even_if_its_cloud_is_suspended(tmp_path: Path) -> None:
    availability = CloudAvailability(clock=lambda: 100.0)
    availability.suspend("c", CloudAway("a", "b", "C."))
    with closing(open_ledger(tmp_path)) as book:
        book.put_set(RECORD)
        requests = Requests(book, Interrupts(), SetStates(book))
        book.put_set(replace(RECORD, state="working"))
        book.put_request(Request(KARMIC, "retry"))
        assert not requests.carry_out(
            lambda key, _cloud: key == KARMIC, availability, Recorder(), builds=tmp_path
        )
        assert len(book.requests()) == 1
        assert book.sets() == (replace(RECORD, state="working"),)
        assert requests.carry_out(lambda _key, _cloud: False, availability, Recorder(), builds=tmp_path)
        assert book.requests() == ()


def test_what_was_answered_stays_so_while_the_ledger_takes_no_word_of_it(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book:
        requests = Requests(book, Interrupts(), SetStates(book))
        book.put_request(Request(KARMIC, "retry"))
        requests.update()
        assert requests.open.has(("/s", "karmic"), "retry")
        book._store.read("PRAGMA query_only = ON")  # as on a disk that was mounted read-only
        requests.finish(requests.open.of(KARMIC, "retry"))
        requests.update()
        assert not requests.open.has(("/s", "karmic"), "retry")
        assert len(book.requests()) == 1


def test_a_retry_on_one_cloud_does_not_wait_for_a_boot_on_another(tmp_path: Path) -> None:
    availability = CloudAvailability(clock=lambda: 100.0)
    availability.suspend("away", CloudAway("a", "b", "C."))
    record = on_several(PARTLY).record
    assert record

    def is_busy(key: SetId, cloud: str) -> bool:
        """As `LastingParts.is_busy` has it, of a set that is booted on one cloud."""
        return key == KARMIC and cloud in ("", "boots")

    with closing(open_ledger(tmp_path)) as book:
        book.put_set(record)
        requests = Requests(book, Interrupts(), SetStates(book))
        book.put_request(Request(KARMIC, "retry", cloud="boots"))
        assert not requests.carry_out(is_busy, availability, Recorder(), builds=tmp_path)
        book.put_request(Request(KARMIC, "retry", cloud="away"))
        assert requests.carry_out(is_busy, availability, Recorder(), builds=tmp_path)
    assert availability.due() == ("away",)


def test_when_a_cloud_is_asked_next_is_written_down_when_it_changes_and_gone_when_it_is_over(
    tmp_path: Path,
) -> None:
    availability = CloudAvailability(clock=lambda: 100.0)
    with closing(open_ledger(tmp_path)) as book:
        book.put_probes({"left behind": 1.0})
        writer = ProbeWriter(book, now=lambda: 1100.0, monotonic=lambda: 100.0)
        writer.write(availability)
        assert book.probes() == {}
        availability.suspend("c", Halted("a", "b", "C."))
        writer.write(availability)
        assert book.probes() == {"c": 1130.0}
        book.put_probes({})
        writer.write(availability)
        assert book.probes() == {}, "it is not written again while it stays the same"
        availability.probe_soon("c")
        writer.write(availability)
        assert book.probes() == {"c": 1100.0}


def test_progress_is_stored_at_intervals_and_counts_from_the_start_of_the_file(tmp_path: Path) -> None:
    clock = [0.0]
    with closing(open_ledger(tmp_path)) as book:
        now = lambda: 1000 + clock[0]  # noqa: E731
        tracker = ProgressTracker(clock=lambda: clock[0], now=now)
        with progress_in_ledger(tracker, book, RECORD.id, now=now):
            for second in range(6):
                clock[0] = float(second)
                file = "karmic.vmlinuz" if second < 3 else "karmic.img"
                tracker.progress(Progress(RECORD.id, "upload", file, second, 6, second))
                tracker.progress(Progress(LUCID, "upload", file, second, 6, second))
                written = book.progress().get(("/s", "karmic"))
                assert (written.done if written else 0) == second // 2 * 2
        assert list(book.progress()) == [], "it is over"
    assert written
    assert (written.file, written.began, written.moment) == ("karmic.img", 1003.0, 1004.0)


def test_no_progress_is_left_of_a_set_that_fails_again_in_the_same_way(
    host: Host, listener: Recorder
) -> None:
    (host.spool / "karmic.toml").write_text('kernel = "eki-00000000"\nconvert = "keep"\n')
    (host.spool / "karmic.img").write_bytes(bytes(4096))
    settings, tracker = load(host.config, environ={}), ProgressTracker()
    with closing(open_ledger(settings.state.dir)) as book:
        for attempt in (1, 2):
            service = Service(settings, listener=Tee((tracker, listener)), tracker=tracker, ledger=book)
            (record,) = service.once()
            assert (record.state, record.attempt) == ("rejected", attempt)
            assert tracker.snapshot() == ()
            book.put_request(Request(record.id, "retry"))
    assert len(listener.sentences(Kind.REJECTED)) == 1, "the journal has it from the first attempt"
