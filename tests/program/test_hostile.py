"""A spool that is shared with people who mean harm: what they plant is noticed, not read and not written.

The service runs as root here, with every right there is, so that nothing but its own care holds it back; its
users are nobody.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import NOBODY, Host, open_way
from tests.support.sizes import MIB
from tests.support.waiting import PATIENCE_SECONDS
from uecwatchd.errors import Deferred, Rejected, UecError
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool import output_files, safe_open, scan
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

SERVICE = 4711
SECRET = b"root:$6$secret:19000:0:99999:7:::\n"
KEEP = 'kernel = "none"\nconvert = "keep"\n'


def image(folder: Path, name: str, *, fill: bytes = b"\x01") -> None:
    """A set of one image that is complete by itself."""
    (folder / f"{name}.img").write_bytes(fill * MIB)
    (folder / f"{name}.toml").write_text(KEEP)


# --- planted outputs --------------------------------------------------------------------------------------

Plant = Callable[[Path, Path], None]


def foreign_file(at: Path, target: Path) -> None:
    del target
    at.write_text("emi-deadbeef\n")
    os.chown(at, NOBODY, NOBODY)


def link_to_a_secret(at: Path, target: Path) -> None:
    at.symlink_to(target)
    os.chown(at, NOBODY, NOBODY, follow_symlinks=False)


def second_name_of_a_users_file(at: Path, target: Path) -> None:
    theirs = target.parent / f"theirs-{at.name}"
    theirs.write_text("theirs")
    os.chown(theirs, NOBODY, NOBODY)
    at.hardlink_to(theirs)


def pipe(at: Path, target: Path) -> None:
    del target
    os.mkfifo(at)


def folder(at: Path, target: Path) -> None:
    del target
    at.mkdir()


PLANTS: Mapping[str, Plant] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (foreign_file, link_to_a_secret, second_name_of_a_users_file, pipe, folder)
}
# Put there by the user whose the sets are; the other kinds by somebody else.
OF_ITS_OWNER = ("pipe", "folder")
SUFFIXES = ("emi", "uec.json", "uec.log", "uec.error")


@dataclass(frozen=True)
class Ran:
    host: Host
    log: str
    rows: Mapping[tuple[str, str], Mapping[str, Any]]
    secret: Path


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, host_class: type[Host]) -> Iterator[Ran]:
    """Each kind of thing in the place of each output: of a complete set, of one that waits, and of none."""
    place = tmp_path_factory.mktemp("planted")
    secret = place / "shadow"
    secret.write_bytes(SECRET)
    with Sandbox(place / "cloud") as cloud:
        host = host_class.made(place / "host", cloud)
        for kind, plant in PLANTS.items():
            for suffix in SUFFIXES:
                name = f"{kind}-{suffix}"
                image(host.spool, f"whole-{name}")
                (host.spool / f"waits-{name}.toml").write_text('machine = "late.img"\n')
                for state in ("whole", "waits", "no-set"):
                    plant(host.spool / f"{state}-{name}.{suffix}", secret)
        image(host.spool, "zz-good", fill=b"\x02")
        ended = host.run("once")
        rows = {(r["name"], r["state"]): r for r in json.loads(host.run("status", "--json").stdout)}
        yield Ran(host, ended.stderr, rows, secret)


EACH = [(kind, suffix) for kind in PLANTS for suffix in SUFFIXES]


@pytest.mark.parametrize("state", ["whole", "waits", "no-set"])
@pytest.mark.parametrize(("kind", "suffix"), EACH)
def test_a_planted_output_is_shown_with_the_reason(planted: Ran, kind: str, suffix: str, state: str) -> None:
    row = planted.rows[f"{state}-{kind}-{suffix}.{suffix}", "misfit"]
    assert "that is not the service's, under the name of something it writes" in row["detail"]


@pytest.mark.parametrize("state", ["whole", "waits"])
@pytest.mark.parametrize(("kind", "suffix"), EACH)
def test_a_set_in_whose_place_something_is_planted_is_reported(
    planted: Ran, kind: str, suffix: str, state: str
) -> None:
    name = f"{state}-{kind}-{suffix}"
    taken = f"{name}.{suffix}: cannot write it"
    if kind in OF_ITS_OWNER:
        row = planted.rows[name, "rejected"]
        assert f"{taken}: the name is taken by a" in row["detail"]
        assert f"{name} is rejected: {taken}" in planted.log
    elif state == "whole":
        remarks = planted.rows[name, "done"]["report"]["remarks"]
        assert sum(remark.startswith(f"{taken}: the name is taken by a") for remark in remarks) == 1
        assert f"something requested is missing: {taken}" in planted.log
    else:
        assert planted.rows[name, "waiting"]


def test_nothing_planted_was_written_to_or_taken_away(planted: Ran) -> None:
    assert planted.secret.read_bytes() == SECRET
    for theirs in planted.secret.parent.glob("theirs-*"):
        assert theirs.read_text() == "theirs"
    for kind in PLANTS:
        for suffix in SUFFIXES:
            for state in ("whole", "waits", "no-set"):
                path = planted.host.spool / f"{state}-{kind}-{suffix}.{suffix}"
                assert os.path.lexists(path), path
    assert all(p.read_text() == "emi-deadbeef\n" for p in planted.host.spool.glob("*-foreign-file-emi.emi"))


def test_a_set_without_obstacles_has_all_its_outputs(planted: Ran) -> None:
    assert (planted.host.spool / "zz-good.emi").exists()
    assert len(planted.host.cloud.images) == 2  # all other sets are of one content


def test_what_was_in_the_way_is_moved_away_and_the_set_is_taken_by_itself(planted: Ran) -> None:
    name = "whole-link-to-a-secret-emi"
    (planted.host.spool / f"{name}.emi").unlink()
    planted.host.run("once")
    assert planted.host.report(name)["state"] == "done"
    assert (planted.host.spool / f"{name}.emi").read_text().startswith("emi-")


def test_a_planted_output_does_not_undo_a_finished_set(host: Host) -> None:
    image(host.spool, "karmic")
    assert host.run("once").returncode == 0
    foreign_file(host.spool / "karmic.uec.error", host.folder)
    (host.spool / "karmic.toml").touch()
    host.run("once")
    assert (host.spool / "karmic.emi").exists()


def test_users_who_ask_for_the_status_see_the_services_outputs_as_the_services(host: Host) -> None:
    image(host.spool, "karmic")
    assert host.run("once").returncode == 0
    open_way(host.folder)
    for path in (
        *host.spool.glob("karmic.uec.*"),
        host.spool / "karmic.emi",
        host.state,
        *host.state.iterdir(),
    ):
        os.chown(path, SERVICE, SERVICE)
    rows = json.loads(host.run("status", "--json").stdout)
    assert [(row["name"], row["state"]) for row in rows] == [("karmic", "done")]


def test_an_archive_that_somebody_else_made_stops_nothing_but_the_archiving(host: Host) -> None:
    host.configure(host.config.read_text().replace("settle =", 'after = "archive"\nsettle ='))
    (host.spool / "done").mkdir()
    os.chown(host.spool / "done", NOBODY, NOBODY)
    image(host.spool, "karmic")
    for _ in range(2):
        ended = host.run("once")
        assert ended.returncode == 0, ended.stderr
    assert "cannot archive it" in ended.stderr
    assert (host.spool / "karmic.img").exists()
    assert list((host.spool / "done").iterdir()) == []


# --- writing, moment by moment ----------------------------------------------------------------------------


def test_a_log_is_never_written_through_a_hard_link(tmp_path: Path) -> None:
    """The other file is the service's own, so that only the number of its names gives it away."""
    other = tmp_path / "other.log"
    other.write_text("ours, elsewhere\n")
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "karmic.uec.log").hardlink_to(other)
    output_files.append(tmp_path / "spool", "karmic.uec.log", "a line\n")
    assert other.read_text() == "ours, elsewhere\n"
    assert (tmp_path / "spool" / "karmic.uec.log").read_text() == "a line\n"


def test_an_output_is_never_written_through_a_hard_link(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("ours, elsewhere\n")
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "karmic.uec.json").hardlink_to(other)
    output_files.place(tmp_path / "spool", "karmic.uec.json", b"{}")
    assert other.read_text() == "ours, elsewhere\n"


# A process of its own: two threads of one interpreter seldom meet within a system call.
SWAP = """
import itertools, os, sys
at, *kinds = sys.argv[1:]
spare = os.path.join(os.path.dirname(at), ".swap")
for kind in itertools.cycle(kinds):
    what, _, rest = kind.partition(":")
    if what == "file":
        with open(spare, "w") as file:
            file.write(rest)
    elif what == "pipe":
        os.mkfifo(spare)
    else:
        {"link": os.symlink, "name": os.link}[what](rest, spare)
    try:
        os.rename(spare, at)
    finally:
        if os.path.lexists(spare):  # two names of one file are left as they are by a rename
            os.unlink(spare)
"""
# The same for a folder, which no rename replaces: there are moments in which nothing is there.
SWAP_FOLDER = """
import os, sys
at, kept, target = sys.argv[1:]
while True:
    os.rename(kept, at)
    os.rename(at, kept)
    os.symlink(target, at)
    os.unlink(at)
"""


@contextmanager
def swapping(script: str, *arguments: str | Path) -> Iterator[None]:
    """Have things swapped in one place, again and again."""
    process = subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)])
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def _for_a_while(met: Collection[object] = ("nothing",)) -> Iterator[int]:
    """Yield for a part of a second, and until something is in `met`, but not for ever."""
    began, turn = time.monotonic(), 0
    while (took := time.monotonic() - began) < 0.7 or (took < PATIENCE_SECONDS and not met):
        yield (turn := turn + 1)


@pytest.mark.parametrize("kind", ["link", "pipe", "name"])
def test_a_log_swapped_while_it_is_written_leads_nowhere_else(tmp_path: Path, kind: str) -> None:
    place, target = tmp_path / "spool", tmp_path / "target"
    place.mkdir()
    target.write_bytes(SECRET)
    log = place / "karmic.uec.log"
    with swapping(SWAP, log, "file:ours", f"{kind}:{target}"):
        for _ in _for_a_while():
            with suppress(Rejected, Deferred):
                output_files.append(place, log.name, "a line\n")
    assert target.read_bytes() == SECRET


def test_a_new_output_does_not_replace_a_file_created_at_the_same_moment(tmp_path: Path) -> None:
    """A rename would. The loser of the race gets an error, and nothing is lost of the other's file."""
    lost = 0
    for turn in range(200):
        name = f"{turn}.emi"
        planter = threading.Thread(target=_plant_foreign, args=(tmp_path / name,))
        planter.start()
        try:
            output_files.place(tmp_path, name, b"emi-12345678\n")
        except Rejected:
            lost += 1
        planter.join()
        theirs = tmp_path / f"{name}.theirs"
        assert theirs.exists() != ((tmp_path / name).read_bytes() == SECRET)
    assert 0 < lost <= 200


def _plant_foreign(at: Path) -> None:
    """Made under another name first, so that it is foreign from the moment on in which it is there."""
    theirs = at.parent / f"{at.name}.theirs"
    theirs.write_bytes(SECRET)
    os.chown(theirs, NOBODY, NOBODY)
    with suppress(FileExistsError):
        os.link(theirs, at)
        theirs.unlink()


# --- reading, moment by moment ----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["member", "sidecar", "sums", "folder"])
def test_a_link_swapped_in_between_the_scan_and_the_opening_is_not_followed(
    tmp_path: Path, what: str
) -> None:
    place, outside = tmp_path / "spool", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    path = {"member": "a.img", "sidecar": "a.toml", "sums": "a.sha256", "folder": "set/a.img"}[what]
    texts = {"sidecar": (b'name = "mine"', b'name = "theirs"'), "sums": (b"1" * 64, b"2" * 64)}
    mine, theirs = texts.get(what, (b"mine", b"theirs"))
    mine, theirs = (text + b"  a.img\n" if what == "sums" else text for text in (mine, theirs))
    (outside / path.rsplit("/", 1)[-1]).write_bytes(theirs)
    at = place / path.split("/")[0]
    scripts: list[str | Path] = [SWAP, at, f"file:{mine.decode()}", f"link:{outside / path}"]
    if what == "folder":
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "a.img").write_bytes(mine)
        scripts = [SWAP_FOLDER, at, tmp_path / "kept", outside]
    met: list[bytes] = []
    with swapping(str(scripts[0]), *scripts[1:]):
        for _ in _for_a_while(met):
            listing = scan.scan(place, now=1.0)
            with suppress(UecError), safe_open.open_member(place, path) as file:
                met.append(file.read())
            assert_mine(listing, path)
    assert set(met) == {mine}, "some turns must have met the file itself"


def assert_mine(listing: scan.Listing, path: str) -> None:
    found = listing.sidecars.get(path)
    if isinstance(found, Sidecar):
        assert found.name == "mine"
    sums = listing.checksums.get(path)
    if isinstance(sums, Mapping):
        assert sums == {"a.img": "1" * 64}
    if isinstance(listing.facts.get(path), Facts):
        assert listing.entries[path].size in (len(b"mine"), len(b"1" * 64))


# --- names and texts --------------------------------------------------------------------------------------

FORGED = "x\n2026-01-01 00:00:00Z  forged is emi-00000000"
NAMES: Mapping[str, str] = {
    "newline": FORGED,
    "carriage return": "x\rforged",
    "quotes": "a\"b'c`d",
    "percent": "100%s%n%(x)s",
    "escape": "\x1b[2J\x1b[31mred",
    "markup": "<a>&amp;]]>",
    "direction": "gpj\u202eexe",
    "dash": "--help",
    "braces": "{stem}{0}{x.__class__}",
    "backslash": "a\\nb",
    "star": "*?[a]",
    "251 bytes": "x" * 251,
    "251 bytes of umlauts": "ä" * 125 + "x",
    "surrogates' cousins": "\U0001f4a5\u0000".strip("\u0000"),
    "header": "x\r\nX-Injected: 1",
    "space": " leading and trailing ",
    "journal field": "a\nPRIORITY=0\nMESSAGE=forged",
}


def _sidecars() -> Iterator[tuple[str, bytes]]:
    yield "a-million-keys.json", b"{" + b",".join(b'"k%d":1' % n for n in range(1_000_000)) + b"}"
    yield "many-keys.toml", b"".join(b"k%d=1\n" % n for n in range(6000))
    yield "deep.json", b'{"tags":' * 7000
    yield "deep-list.json", b"[" * 60_000
    yield "deep-inline.toml", b"a=" + b"{a=" * 15_000
    yield "deep-tables.toml", b"".join(b"[" + b"a." * n + b"a]\n" for n in range(60))
    yield "deep-dots.toml", b"a." * 10_000 + b"a=1"
    yield "nothing.toml", b"\0" * 60_000
    yield "not-text.json", b"\xff\xfe" * 1000


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, host_class: type[Host]) -> Iterator[Ran]:
    place = tmp_path_factory.mktemp("odd")
    with Sandbox(place / "cloud") as cloud:
        host = host_class.made(place / "host", cloud)
        for number, name in enumerate(NAMES.values()):
            (host.spool / f"{name}.img").write_bytes(bytes([number]) * MIB)
        (Path(os.fsdecode(os.fsencode(host.spool) + b"/\xff\xfe.img"))).write_bytes(b"x")
        for name, data in _sidecars():
            (host.spool / name).write_bytes(data)
        with (host.spool / "a-hole.toml").open("wb") as hole:
            hole.truncate(1 << 40)
        with socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.bind(str(host.spool / "s.img"))
        subprocess.run(["mknod", host.spool / "d.img", "c", "1", "5"], check=True)  # /dev/zero never ends
        # Without a kernel, as the configuration has it: what is in a sidecar's place would be in the way.
        host.configure(
            host.config.read_text().replace("[defaults]", '[defaults]\nkernel = "none"\nconvert = "keep"')
        )
        image(host.spool, "good", fill=b"\xee")
        begun = time.monotonic()
        ended = host.run("once")
        assert time.monotonic() - begun < 60
        assert "Traceback" not in ended.stderr
        rows = {(r["name"], r["state"]): r for r in json.loads(host.run("status", "--json").stdout)}
        yield Ran(host, ended.stderr, rows, host.spool)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_an_image_of_an_odd_name_is_registered_or_refused_in_words(odd: Ran, name: str) -> None:
    (state,) = {state for found, state in odd.rows if found == name}
    assert state in ("done", "rejected"), odd.rows[name, state]
    stem = output_files.output_stem(name)
    assert (odd.host.spool / f"{stem}.emi").exists() == (state == "done")
    assert (odd.host.spool / f"{stem}.uec.error").exists() == (state == "rejected")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_no_odd_name_forges_a_log_line_or_controls_a_terminal(odd: Ran, name: str) -> None:
    stem = output_files.output_stem(name)
    for line in (odd.host.spool / f"{stem}.uec.log").read_text().splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  |--- attempt 1, | {22}", line), line
        assert line.isprintable()
        assert not line.startswith("2026-01-01")


def test_the_daemons_own_log_and_the_status_have_only_lines_of_ours(odd: Ran) -> None:
    table = odd.host.run("status").stdout
    for text in (odd.log, table):
        assert all(line.isprintable() for line in text.splitlines())
        assert not any(
            line.startswith(("2026-01-01", "PRIORITY", "X-Injected", "forged")) for line in text.splitlines()
        )
    assert len(table.splitlines()) == len(odd.rows) + 1


def test_what_odd_names_became_in_the_cloud_can_be_listed_and_read(odd: Ran) -> None:
    done = {name for name, state in odd.rows if state == "done"}
    assert len(odd.host.cloud.images) == len(done)
    for name in sorted(done)[:3]:
        verified = odd.host.run("verify", "--", name)
        assert verified.returncode == 0, verified.stderr
    assert odd.host.run("images").returncode == 0


@pytest.mark.parametrize("file", [*(name for name, _ in _sidecars()), "a-hole.toml"])
def test_a_sidecar_that_means_harm_is_refused_in_words(odd: Ran, file: str) -> None:
    row = odd.rows[file.rsplit(".", 1)[0], "rejected"]
    assert f"{file}: it cannot be used" in row["detail"]
    assert len(row["detail"]) < 2000


def test_what_is_no_file_is_refused_and_what_has_no_name_in_words_is_passed_over(odd: Ran) -> None:
    assert "a device" in odd.rows["d", "rejected"]["detail"]
    assert odd.rows[r"\xff\xfe.img", "ignored"]["detail"] == "a name that is not UTF-8"
    assert ("good", "done") in odd.rows
