"""A folder that holds whatever there is room for: no look at it takes more than its time and its memory."""

import contextlib
import gc
import itertools
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.cage import cage
from tests.support.host import Host
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.errors import LONGEST_TEXT_CHARS, Deferred, Rejected, UecError
from uecwatchd.images.facts import Facts
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderUsers, Rules
from uecwatchd.intake.sidecar import MOST_ENTRIES, SIDECAR_LIMIT_BYTES, Sidecar, read_sidecar
from uecwatchd.intake.spool import safe_open, scan
from uecwatchd.intake.spool.contents import Contents, ReadBudget, read_contents
from uecwatchd.intake.spool.name_limit import MOST_NAMES_IN_A_SET
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.schema import FILE_NAME
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.set_states import SetStates
from uecwatchd.types import FileStamp

MIB = 1 << 20
RULES = Rules(1.0, Sidecar(), {"default": frozenset()}, {"default": frozenset()}, frozenset({"default"}))
KEEP = 'kernel = "none"\nconvert = "keep"\n'


def image(folder: Path, name: str, *, fill: bytes = b"\x01") -> None:
    """A set of one image that is complete by itself."""
    (folder / f"{name}.img").write_bytes(fill * MIB)
    (folder / f"{name}.toml").write_text(KEEP)


def full(piece: Callable[[int], bytes], *, head: bytes = b"", tail: bytes = b"") -> bytes:
    """As many pieces as a file of metadata may hold."""
    room, pieces = SIDECAR_LIMIT_BYTES - len(head) - len(tail), []
    for one in map(piece, itertools.count()):
        if (room := room - len(one)) < 0:
            return head + b"".join(pieces) + tail
        pieces.append(one)
    raise AssertionError


DIGEST = b"0123456789abcdef" * 4
# By the ending of the file's name: what costs the most to parse, to refuse, or to keep.
WORST: Mapping[str, tuple[str, bytes]] = {
    "a list of numbers": (".toml", full(lambda _: b"1,", head=b"share=[", tail=b"]")),
    "a list of short texts": (".toml", full(lambda _: b'"a",', head=b"share=[", tail=b"]")),
    "a list of tables": (".toml", full(lambda _: b"{},", head=b"clouds=[", tail=b"]")),
    "unknown keys": (".toml", full(lambda n: b"k%d=1\n" % n)),
    "unknown tables": (".toml", full(lambda n: b"[a%d]\n" % n)),
    "tags": (".toml", full(lambda n: b"k%d=1," % n, head=b"tags={", tail=b"}")),
    "sums": (".toml", full(lambda n: b"k%d=1," % n, head=b"sha256={", tail=b"}")),
    "a key twice": (".toml", b'["' + b"a" * 30_000 + b'"]\n["' + b"a" * 30_000 + b'"]\n'),
    "keys in ten bytes a letter": (
        ".toml",
        b"".join(b'"%d%s"=1\n' % (n, "\U000e0001".encode() * 90) for n in range(150)),
    ),
    "dots": (".toml", b"a" + b".a" * 999 + b"=1"),
    "escapes": (".toml", full(lambda _: b"\\u0041", head=b'description="', tail=b'"')),
    "numbers in JSON": (".json", full(lambda _: b"1,", head=b'{"share":[', tail=b"1]}")),
    "keys in JSON": (".json", full(lambda n: b'"k%d":1,' % n, head=b"{", tail=b'"z":1}')),
    "lists in JSON": (".json", full(lambda _: b"[],", head=b'{"tags":[', tail=b"1]}")),
    "good sums": (".sha256", full(lambda n: DIGEST + b"  %d\n" % n)),
    "good sums that are kept": (
        ".toml",
        b"sha256={" + b",".join(b'"%d"="%s"' % (n, DIGEST) for n in range(MOST_ENTRIES)) + b"}",
    ),
}


def test_ten_thousand_worst_sidecars_in_256_mib_keep_nobody_from_an_image(host: Host) -> None:
    for number, (suffix, data) in zip(range(10_000), itertools.cycle(WORST.values()), strict=False):
        (host.spool / f"{number}{suffix}").write_bytes(data)
    log = host.folder / "log"
    command = [sys.executable, "-m", "uecwatchd", "run"]
    with cage(256 * MIB) as small:
        environ = {**os.environ, "UECWATCHD_CONFIG": str(host.config)}
        daemon = small.popen(command, environ=environ, talk=log)
        try:
            until_come(lambda: "Watching" in log.read_text(), daemon)
            image(host.spool, "good")
            until_come((host.spool / "good.emi").exists, daemon)
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(PATIENCE_SECONDS) == 0
        finally:
            daemon.kill()
            daemon.wait()
        assert small.kills() == 0


def until_come(come: Callable[[], bool], daemon: Any) -> None:
    """Wait for what a daemon that goes on is to do."""
    until(lambda: come() or daemon.poll() is not None)
    assert daemon.poll() is None, "it has ended"


# --- what is kept -----------------------------------------------------------------------------------------


def kept_bytes(look: Callable[[], object]) -> tuple[object, int]:
    """What a look gives, and how much memory that holds on to."""
    gc.collect()
    tracemalloc.start()
    try:
        found = look()
        gc.collect()
        return found, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", WORST)
def test_of_the_worst_metadata_little_is_kept(tmp_path: Path, kind: str) -> None:
    suffix, data = WORST[kind]
    (tmp_path / f"karmic{suffix}").write_bytes(data)
    scan.scan(tmp_path, now=0.0)  # or what parsers remember of their first time would count
    _, kept = kept_bytes(lambda: scan.scan(tmp_path, now=0.0))
    most = 6 * len(data) if kind.startswith("good") else 20 * 1024
    assert kept < most


def test_a_refusal_keeps_its_words_and_nothing_that_led_to_it(tmp_path: Path) -> None:
    (tmp_path / "karmic.toml").write_bytes(b"share = [1]")
    (tmp_path / "karmic.sha256").write_bytes(b"nothing")
    (tmp_path / "lucid.img").symlink_to("/etc/shadow")
    (tmp_path / "closed").mkdir()
    listing = scan.scan(tmp_path, now=0.0)
    for _ in range(3):
        assembly = assemble(replace(listing, now=100.0), rules=RULES)
    errors = [*listing.sidecars.values(), *listing.checksums.values(), *(r.error for r in assembly.refused)]
    assert len(errors) == 4
    for error in errors:
        assert isinstance(error, UecError)
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        (
            "k.toml",
            b"share = [" + b'"123456789012",' * 201 + b"]",
            "share must not have more than 200 entries",
        ),
        ("k.toml", b"clouds = [" + b'"a",' * 201 + b"]", "clouds must not have more than 200 entries"),
        ("k.toml", b"".join(b"[[machine]]\n" for _ in range(201)), "machine must not have more than 200"),
        ("k.toml", b"".join(b"tags.k%d = 'x'\n" % n for n in range(201)), "tags must not have more than 200"),
        (
            "k.toml",
            b"public = true\n" + b"".join(b"k%d = 1\n" % n for n in range(201)),
            "must not have more than 200 keys",
        ),
        ("k.json", full(lambda n: b'"k%d":1,' % n, head=b'{"sha256":{', tail=b'"z":1}}'), "sha256 must not"),
        ("k.toml", full(lambda _: b"1,", head=b"x=[", tail=b"]"), "it has more than 1000 commas"),
        ("k.toml", full(lambda _: b"[", head=b"x="), "it has more than 1000 brackets"),
        ("k.toml", full(lambda _: b"{a=", head=b"x="), "it has more than 1000 equals signs"),
    ],
)
def test_no_list_and_no_table_is_longer_than_any_set_needs(name: str, data: bytes, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        read_sidecar(name, data)


def test_what_two_hundred_accounts_and_sums_take_is_read() -> None:
    accounts = ", ".join(f'"{n:012}"' for n in range(200))
    sums = ", ".join(f'"linux-6.1.0-{n}.img" = "{DIGEST.decode()}"' for n in range(200))
    read = read_sidecar("k.toml", f"share = [{accounts}]\nsha256 = {{ {sums} }}".encode())
    assert (len(read.share), len(read.sha256)) == (200, 200)


@pytest.mark.parametrize("size", [10, 100_000])
def test_no_error_is_longer_than_anybody_reads(size: int) -> None:
    error = Rejected("x" * size, "y" * size, "z" * size)
    assert len(str(error)) <= 3 * (LONGEST_TEXT_CHARS + 3)


# --- what one look reads ----------------------------------------------------------------------------------


def ticking() -> Callable[[], float]:
    """A clock that a second passes on at each look at it."""
    ticks = itertools.count()
    return lambda: float(next(ticks))


def linked(folder: Path, data: bytes) -> scan.Listing:
    """A look at one file of metadata that has 36 names."""
    (folder / "0.toml").write_bytes(data)
    for name in [*(f"{number}.toml" for number in range(1, 35)), "other.json"]:
        (folder / name).hardlink_to(folder / "0.toml")
    return scan.scan(folder, now=0.0)


def test_each_inode_is_read_once_for_all_its_names(tmp_path: Path) -> None:
    found = linked(tmp_path, b'name = "one"').sidecars
    (read,) = {id(said) for path, said in found.items() if path != "other.json"}
    assert id(found["0.toml"]) == read
    assert isinstance(found["other.json"], Rejected), "another ending is another way to read it"


def test_what_is_wrong_with_an_inode_is_told_of_each_of_its_names(tmp_path: Path) -> None:
    errors = linked(tmp_path, b"public = 1").sidecars
    assert len(errors) == 36
    for path, error in errors.items():
        assert isinstance(error, Rejected)
        assert error.what == f"{path}: it cannot be used"
    assert len({id(e.why) for p, e in errors.items() if isinstance(e, Rejected) and p != "other.json"}) == 1


def test_a_look_reads_for_as_long_as_it_may_and_the_next_ones_read_the_rest(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.img").write_bytes(b"x")
    listing, looks = None, 0
    while listing is None or listing.unread:
        budget = ReadBudget(seconds=10.0, clock=ticking())
        listing = scan.scan(tmp_path, now=0.0, before=listing, budget=budget)
        looks += 1
        assert len(listing.facts) + len(listing.unread) == 50
    assert looks == 5


@pytest.mark.parametrize("which", ["the newest", "the oldest", "the smallest"])
def test_neither_the_new_nor_the_old_nor_the_small_wait_for_the_rest(tmp_path: Path, which: str) -> None:
    names = [f"{number}.toml" for number in range(100)]
    mine = {"the newest": "99.toml", "the oldest": "0.toml", "the smallest": "50.toml"}[which]
    for name in names:
        (tmp_path / name).write_bytes(b"#" * (10 if name == "50.toml" else 1000))
        os.utime(tmp_path / name)
    budget = ReadBudget(seconds=5.0, clock=ticking())
    listing = scan.scan(tmp_path, now=0.0, budget=budget)
    assert mine in listing.sidecars
    assert len(listing.sidecars) < 10


def test_a_set_whose_files_have_not_been_read_waits_for_a_moment_and_is_not_told_of(tmp_path: Path) -> None:
    image(tmp_path, "karmic")
    (tmp_path / "lucid.img").write_bytes(b"x")
    listing = replace(scan.scan(tmp_path, now=0.0), now=100.0)
    for unread in ("karmic.img", "karmic.toml"):
        found = assemble(replace(listing, unread=frozenset({unread})), rules=RULES)
        (wait,) = [wait for wait in found.waiting if wait.name == "karmic"]
        assert (wait.brief, wait.ready_at) == (True, 100.0)


def test_what_has_no_sidecar_waits_until_all_that_could_name_it_were_read(tmp_path: Path) -> None:
    (tmp_path / "lucid.img").write_bytes(b"x" * MIB)
    (tmp_path / "private.toml").write_text('machine = "lucid.img"\npublic = false\n')
    listing = replace(scan.scan(tmp_path, now=0.0), now=100.0, unread=frozenset({"private.toml"}))
    found = assemble(replace(listing, sidecars={}), rules=RULES)
    assert {wait.name for wait in found.waiting} == {"lucid", "private"}
    assert not found.ready


def test_of_more_metadata_than_there_is_room_for_the_smallest_is_kept(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.toml").write_bytes(b"#" * 1000)
    (tmp_path / "small.toml").write_bytes(b"#")
    budget = ReadBudget(kept=10_000)
    first = scan.scan(tmp_path, now=0.0, budget=budget)
    again = scan.scan(tmp_path, now=0.0, before=first, budget=budget)
    for listing in (first, again):
        assert "small.toml" in listing.sidecars
        assert (len(listing.sidecars), len(listing.crowded), len(listing.unread)) == (10, 11, 0)
    for path in first.sidecars:
        (tmp_path / path).unlink()
    assert len(scan.scan(tmp_path, now=0.0, before=again, budget=budget).sidecars) == 10


def test_another_file_in_a_listed_ones_place_does_not_speak_for_its_other_names(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"')
    (tmp_path / "a.toml").hardlink_to(tmp_path / "mine.toml")
    entries = scan.scan(tmp_path, now=0.0).entries
    (tmp_path / ".forged").write_text('name = "forged"')
    (tmp_path / ".forged").rename(tmp_path / "a.toml")
    nothing = Contents({}, {}, {}, {}, frozenset(), frozenset())
    with safe_open.folder_descriptor(tmp_path) as descriptor:
        found = read_contents(descriptor, entries, before=nothing, same=(), budget=ReadBudget())
    assert all(isinstance(said, Deferred) for said in found.sidecars.values())


# --- what is said of it -----------------------------------------------------------------------------------


@contextmanager
def served(host: Host, **environ: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The daemon on a host, from its first word on; its log in `host.folder / "log"`."""
    with (host.folder / "log").open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "uecwatchd", "run"],
            env={**os.environ, "UECWATCHD_CONFIG": str(host.config), **environ},
            stderr=out,
        )
    try:
        until_come(lambda: "Watching" in (host.folder / "log").read_text(), daemon)
        yield daemon
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE_SECONDS) == 0
    finally:
        daemon.kill()
        daemon.wait()


@pytest.fixture
def heard_by_systemd(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The address for `$NOTIFY_SOCKET`, and what comes there."""
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(str(tmp_path / "notify"))

        def listen() -> None:
            with contextlib.suppress(OSError):
                while data := ours.recv(65536):
                    heard.append(data.decode())

        thread = threading.Thread(target=listen)
        thread.start()
        yield str(tmp_path / "notify"), heard
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()


def flood(folder: Path, bad: int) -> None:
    for number in range(bad):
        (folder / f"bad{number}.img").write_bytes(b"no image")
        (folder / f"empty{number}").write_bytes(b"")
    for number in range(bad // 4):
        (folder / f"folder{number}").mkdir()


def test_a_set_that_can_be_begun_does_not_wait_for_what_is_said_of_thousands(
    host: Host, heard_by_systemd: tuple[str, list[str]]
) -> None:
    address, heard = heard_by_systemd
    flood(host.spool, 1500)
    image(host.spool, "good")
    with served(host, NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000") as daemon:
        until_come((host.spool / "good.uec.log").exists, daemon)
        assert len(list(host.spool.glob("bad*.uec.error"))) < 1500, "some are still to be told of"
        told = len(heard)
        until_come((host.spool / "good.emi").exists, daemon)
        until_come(lambda: any("WATCHDOG=1" in each for each in heard[told:]), daemon)
        until_come(lambda: any("rejected" in each for each in heard[told:]), daemon)


def test_systemd_hears_of_a_first_look_that_goes_on(
    host: Host, heard_by_systemd: tuple[str, list[str]]
) -> None:
    address, heard = heard_by_systemd
    flood(host.spool, 20)
    with served(host, NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000"):
        pass
    first = [each.split("=")[0] for each in heard]
    assert first.index("EXTEND_TIMEOUT_USEC") < first.index("READY")


def test_a_look_tells_of_each_name_and_each_file_that_it_comes_past(tmp_path: Path) -> None:
    flood(tmp_path, 20)
    beats: list[None] = []
    scan.scan(tmp_path, now=0.0, budget=ReadBudget(beat=lambda: beats.append(None)))
    assert len(beats) == 2 * 40 + 5


def test_deciding_tells_of_each_name_and_each_set_that_it_comes_past(tmp_path: Path) -> None:
    flood(tmp_path, 20)
    for number in range(10):
        (tmp_path / f"{number}.toml~").touch()
    beats: list[None] = []
    found = assemble(scan.scan(tmp_path, now=0.0), rules=RULES, beat=lambda: beats.append(None))
    assert len(beats) >= 50 + len(found.ready) + len(found.waiting) + len(found.refused)


def test_once_says_all_there_is_to_say(host: Host) -> None:
    flood(host.spool, 60)
    ended = host.run("once")
    assert ended.returncode == 65
    assert len(list(host.spool.glob("bad*.uec.error"))) == 60
    assert len(list(host.spool.glob("folder*.uec.json"))) == 15


def record(name: str, **values: Any) -> SetRecord:
    return SetRecord("/s", name, "stamp", "rejected", 1.0, **values)


def test_several_records_are_written_all_or_none(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book:
        book.put_sets([record("a"), record("b")])
        with pytest.raises(UecError):
            book.put_sets([record("c"), replace(record("d"), since=None)])  # type: ignore[arg-type]
        assert [found.name for found in book.sets()] == ["a", "b"]


def test_records_that_could_not_be_written_together_are_written_later(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book, closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        states = SetStates(book)
        other.execute("CREATE TRIGGER full BEFORE INSERT ON sets BEGIN SELECT RAISE(ABORT, 'full'); END")
        states.put_all([record("a"), record("b")])
        assert [found.name for found in states.records()] == ["a", "b"]
        assert not book.sets()
        other.execute("DROP TRIGGER full")
        states.catch_up()
        assert [found.name for found in book.sets()] == ["a", "b"]


def test_that_files_are_to_lie_still_is_written_down_at_the_end_alone(host: Host) -> None:
    host.configure(host.config.read_text().replace("settle = 0.3", "settle = 3600"))
    image(host.spool, "karmic")
    with served(host) as daemon:
        until_come(lambda: "Watching" in (host.folder / "log").read_text(), daemon)
        with closing(open_ledger(host.state)) as book:
            assert not book.sets()
    with closing(open_ledger(host.state)) as book:
        assert [(record.name, record.state) for record in book.sets()] == [("karmic", "waiting")]


# --- whose it is ------------------------------------------------------------------------------------------

ALICE, BOB = 1001, 1002


def dropped(folder: Path, name: str, data: bytes, owner: int) -> None:
    (folder / name).write_bytes(data)
    os.chown(folder / name, owner, owner)


def test_owners_take_turns_at_being_read(tmp_path: Path) -> None:
    for number in range(100):
        dropped(tmp_path, f"{number}.toml", b"#", BOB)
    for name in ("a.img", "a.toml", "b.img"):
        dropped(tmp_path, name, b"#" * 1000, ALICE)
    listing = scan.scan(tmp_path, now=0.0, budget=ReadBudget(seconds=7.0, clock=ticking()))
    assert {"a.img", "a.toml", "b.img"} <= {*listing.facts, *listing.sidecars}
    assert len(listing.unread) > 90


def test_whoever_has_most_metadata_loses_some_of_it(tmp_path: Path) -> None:
    for number in range(100):
        dropped(tmp_path, f"{number}.toml", b"#" * 100, BOB)
    dropped(tmp_path, "a.toml", b"#" * 4000, ALICE)
    listing = scan.scan(tmp_path, now=0.0, budget=ReadBudget(kept=8000))
    assert "a.toml" in listing.sidecars
    assert len(listing.crowded) == 60


def test_whoever_has_most_names_loses_some_of_them(tmp_path: Path) -> None:
    for number in range(100):
        dropped(tmp_path, f"bob{number}.img", b"", BOB)
    for name in ("alice.img", "alice.toml"):
        dropped(tmp_path, name, b"", ALICE)
    listing = scan.scan(tmp_path, now=0.0, budget=ReadBudget(names=50))
    assert len(listing.entries) == 50
    assert {"alice.img", "alice.toml"} <= listing.entries.keys()
    assert listing.left_out == {BOB: 52}


def test_what_is_left_out_is_told_once(host: Host) -> None:
    with served(host, UECWATCHD_SPOOL__SCAN_EVERY="0.2") as daemon:
        for number in range(MOST_NAMES_IN_A_SET + 1):
            (host.spool / "new").mkdir(exist_ok=True)
            (host.spool / "new" / f"{number}").touch()
        image(host.spool, "good")
        until_come((host.spool / "good.emi").exists, daemon)
        until_come((host.spool / "new.uec.error").exists, daemon)
    assert "more lies in it than the 1000 files" in (host.spool / "new.uec.error").read_text()
    assert (host.folder / "log").read_text().count("new is rejected") == 1


def test_folders_of_one_owner_leave_room_for_those_of_another(tmp_path: Path) -> None:
    for owner, count in ((BOB, 20), (ALICE, 1)):
        for folder in (tmp_path / f"{owner}-{number}" for number in range(count)):
            folder.mkdir()
            os.chown(folder, owner, owner)
            for number in range(10):
                (folder / f"{number}").touch()
    listing = scan.scan(tmp_path, now=0.0, budget=ReadBudget(names=100))
    assert f"{ALICE}-0" not in listing.facts
    assert sum(isinstance(content, Rejected) for content in listing.facts.values()) == 15
    assert len(listing.entries) == 21 + 60


def test_a_sidecar_of_another_owner_that_is_not_read_yet_holds_nothing(tmp_path: Path) -> None:
    dropped(tmp_path, "a.img", b"x" * MIB, ALICE)
    dropped(tmp_path, "b.toml", b"", BOB)
    unread = frozenset({"b.toml"})
    listing = replace(scan.scan(tmp_path, now=0.0), now=100.0, unread=unread, sidecars={})
    for users, is_held in ((None, True), (FolderUsers(frozenset({0})), False)):
        found = assemble(listing, rules=replace(RULES, users=users))
        assert any(w.name == "a" and "to be read" in w.reason for w in found.waiting) == is_held


def test_names_by_the_thousand_are_compared_in_little_memory(tmp_path: Path) -> None:
    letters = random.Random(0)  # noqa: S311 (names, not keys)
    names = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz_", k=240)) for _ in range(2500)]
    entry = scan.Entry("", "file", MIB, FileStamp(1, 1, MIB, 7), 0.0)
    entries = {f"{name}.img": replace(entry, name=f"{name}.img") for name in names}
    entries["lone.toml"] = replace(entry, name="lone.toml")
    facts = Facts("mbr", "machine", None, "disk", None, None)
    facts_by_path = {path: facts for path in entries if path.endswith(".img")}
    listing = scan.Listing(tmp_path, 100.0, entries, {}, facts_by_path, {"lone.toml": Sidecar()}, {})
    tracemalloc.start()
    try:
        assert len(assemble(listing, rules=RULES).ready) == 2500
        assert tracemalloc.get_traced_memory()[1] < 100 * MIB
    finally:
        tracemalloc.stop()
