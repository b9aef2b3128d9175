"""Changes in a guest, one rule at a time: each case is a guest that is ready but for one thing."""

from pathlib import Path

import pytest

from tests.support.folder_files import FolderFiles
from tests.support.guest_images import Content, Link, fill
from uecwatchd.errors import Rejected
from uecwatchd.images.guest.disk import GuestDisk, LinuxSystem
from uecwatchd.images.guest.fstab import PlacedVolume
from uecwatchd.images.guest.guest_facts import gather_facts
from uecwatchd.images.guest.tree import GuestTree
from uecwatchd.images.guest.volumes import Volume
from uecwatchd.images.prepare.diff import describe_change
from uecwatchd.images.prepare.edits import MakeLink, RemoveEntry, WriteContent
from uecwatchd.images.prepare.guest_state import find_user, read_state
from uecwatchd.images.prepare.key_hook import MARK
from uecwatchd.images.prepare.placing import PlacedEdit, place_edits
from uecwatchd.images.prepare.plan import make_plan

MANUAL = (
    "#!/bin/sh\ncurl -m 10 -s http://169.254.169.254/latest/meta-data/public-keys/0/openssh-key\nexit 0\n"
)
SYSTEMD = "usr/lib/systemd"
READY: dict[str, Content] = {
    "sbin/init": Link("../usr/lib/systemd/systemd"),
    f"{SYSTEMD}/systemd": "",
    f"{SYSTEMD}/system/serial-getty@.service": "",
    f"{SYSTEMD}/system/rc-local.service": "[Service]\nExecStart=/etc/rc.local start\n",
    f"{SYSTEMD}/system-generators/systemd-rc-local-generator": "",
    "etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service": Link("/x"),
    "etc/systemd/system/cloud-init.target.wants/cloud-init.service": Link("/x"),
    "etc/machine-id": "",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n",
    "home/bob": None,
    "usr/bin/curl": "",
}
CLOUD_INIT = "etc/systemd/system/cloud-init.target.wants/cloud-init.service"
GETTY = "etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service"
UPSTART = ("sbin/init", f"{SYSTEMD}/systemd", GETTY)


def look(
    folder: Path, changes: dict[str, Content], *without: str
) -> tuple[tuple[PlacedEdit, ...], tuple[str, ...]]:
    files = {path: content for path, content in (READY | changes).items() if path not in without}
    fill(folder, files)
    for path in ("etc/rc.local", "etc/rc.d/rc.local"):
        if isinstance(changes.get(path), str):
            (folder / path).chmod(0o755)
    plain = FolderFiles(folder)
    root = PlacedVolume(Volume("ext4", 1, "", "", "", "", plain), None)
    system = LinuxSystem(GuestTree({"/": plain}), root, ())
    facts = gather_facts(GuestDisk("partition", None, (root,)), system, ())
    plan = make_plan(read_state(system.tree, facts))
    return place_edits(system, plan.edits), plan.remarks


def described(placed: tuple[PlacedEdit, ...]) -> list[str]:
    return [f"{change.path} {change.word}" for change in map(describe_change, placed)]


def test_a_guest_that_is_ready_stays_as_it_is(tmp_path: Path) -> None:
    assert look(tmp_path, {}) == ((), ())


RC_UNIT = "/etc/systemd/system/rc-local.service added"
RC_WANTED = "/etc/systemd/system/multi-user.target.wants/rc-local.service linked"
CASES: dict[str, tuple[dict[str, Content], tuple[str, ...], list[str]]] = {
    "nothing fetches a key": ({}, (CLOUD_INIT,), ["/etc/rc.local added"]),
    "an rc.local without a key": (
        {"etc/rc.local": "#!/bin/sh\nexit 0\n"}, (CLOUD_INIT,), ["/etc/rc.local changed"]
    ),
    "the manual's rc.local": ({"etc/rc.local": MANUAL}, (CLOUD_INIT,), []),
    "rc.local behind a link": (
        {
            "etc/rc.local": Link("rc.d/rc.local"),
            "etc/rc.d/rc.local": "#!/bin/sh\ntouch /x\n",
            f"{SYSTEMD}/system/rc-local.service": "ExecStart=/etc/rc.d/rc.local start\n",
        },
        (CLOUD_INIT,),
        ["/etc/rc.d/rc.local changed"],
    ),
    "a link to nothing": ({"etc/rc.local": Link("rc.d/none")}, (CLOUD_INIT,), ["/etc/rc.local added"]),
    "systemd without rc.local": (
        {},
        (CLOUD_INIT, f"{SYSTEMD}/system/rc-local.service"),
        ["/etc/rc.local added", RC_UNIT, RC_WANTED],
    ),
    "the manual's rc.local, never started": (
        {"etc/rc.local": MANUAL},
        (CLOUD_INIT, f"{SYSTEMD}/system/rc-local.service"),
        [RC_UNIT, RC_WANTED],
    ),
    "network rules": (
        {"etc/udev/rules.d/70-persistent-net.rules": 'SUBSYSTEM=="net", NAME="eth0"\n'},
        (),
        ["/etc/udev/rules.d/70-persistent-net.rules removed"],
    ),
    "network rules of nobody": ({"etc/udev/rules.d/70-persistent-net.rules": "# none\n"}, (), []),
    "a machine-id": ({"etc/machine-id": "0" * 32}, (), ["/etc/machine-id emptied"]),
    "two machine-ids": (
        {"etc/machine-id": "0" * 32, "var/lib/dbus/machine-id": "0" * 32},
        (),
        ["/etc/machine-id emptied", "/var/lib/dbus/machine-id removed"],
    ),
    "one machine-id by two names": (
        {"etc/machine-id": "0" * 32, "var/lib/dbus/machine-id": Link("/etc/machine-id")},
        (),
        ["/etc/machine-id emptied"],
    ),
    "a machine-id without systemd": (
        {"etc/machine-id": "0" * 32, "etc/inittab": "s0:2345:respawn:/sbin/getty ttyS0\n"},
        UPSTART,
        ["/etc/machine-id removed"],
    ),
    "no serial console": ({}, (GETTY,), [f"/{GETTY} linked"]),
    "no serial console with upstart": (
        {"etc/init/tty1.conf": "exec getty", "sbin/getty": ""},
        UPSTART,
        ["/etc/init/ttyS0.conf added"],
    ),
    "no serial console with an inittab": (
        {"etc/inittab": "1:2345:respawn:/sbin/getty 38400 tty1", "sbin/getty": ""},
        UPSTART,
        ["/etc/inittab changed"],
    ),
    "OpenRC": (
        {"etc/runlevels/default": None, "etc/local.d": None, "etc/inittab": "ttyS0::respawn:/sbin/getty\n"},
        (*UPSTART, CLOUD_INIT),
        ["/etc/local.d/uecwatchd.start added", "/etc/runlevels/default/local linked"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "without", "expected"), CASES.values(), ids=CASES)
def test_a_guest_gets_what_it_lacks(
    tmp_path: Path, changes: dict[str, Content], without: tuple[str, ...], expected: list[str]
) -> None:
    placed, _ = look(tmp_path, changes, *without)
    assert described(placed) == expected


REMARKS: dict[str, tuple[dict[str, Content], tuple[str, ...], str]] = {
    "no program": ({}, (CLOUD_INIT, "usr/bin/curl"), "neither curl nor wget"),
    "masked": (
        {"etc/systemd/system/rc-local.service": Link("/dev/null")}, (CLOUD_INIT,), "service is masked"
    ),
    "no shell": ({"etc/rc.local": "#!/usr/bin/perl\n"}, (CLOUD_INIT,), "/etc/rc.local is no shell script"),
    "kernel": ({}, (GETTY,), "only if its boot loader has console=ttyS0"),
    "no getty": ({}, UPSTART, "nothing is started on the serial console"),
    "no init": ({}, (CLOUD_INIT, *UPSTART), "it is not known if this guest starts /etc/rc.local at boot"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "without", "expected"), REMARKS.values(), ids=REMARKS)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, changes: dict[str, Content], without: tuple[str, ...], expected: str
) -> None:
    _, remarks = look(tmp_path, changes, *without)
    assert expected in "; ".join(remarks)


def test_the_hook_is_not_added_twice(tmp_path: Path) -> None:
    (first, *_), _ = look(tmp_path, {}, CLOUD_INIT)
    hooked = first.edit.content.decode()
    assert hooked.count(MARK) == 1
    assert look(tmp_path, {"etc/rc.local": hooked}, CLOUD_INIT)[0] == ()
    (tmp_path / "etc/rc.local").unlink()
    fill(tmp_path, {"etc/rc.local": hooked})  # not executable
    (again,) = look(tmp_path, {}, CLOUD_INIT)[0]
    assert (again.edit.content.decode(), again.edit.mode) == (hooked, 0o755)


def test_content_that_is_no_text_stays(tmp_path: Path) -> None:
    (edit,), _ = look(tmp_path, {"etc/rc.local": b"#!/bin/sh\necho \xff\xfe\x0c\nexit 0\n"}, CLOUD_INIT)
    assert b"echo \xff\xfe\x0c\n" in edit.edit.content


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"etc/rc.local": "#" * 70_000}, "more than 65536 bytes"),
        ({"etc/rc.local": Link("a b"), "etc/a b": "#!/bin/sh\n"}, "unusual characters in a b"),
        ({"etc/rc.local": None}, "it is no file"),
        ({"etc/systemd/system": Link("/srv/file"), "srv/file": ""}, "/srv/file is no folder"),
    ],
)
def test_a_place_that_cannot_be_changed_is_refused(
    tmp_path: Path, changes: dict[str, Content], why: str
) -> None:
    gone = [path for path in READY if path.startswith("etc/systemd/")]
    with pytest.raises(Rejected, match=why):
        look(tmp_path, changes, *gone)


USERS = {
    "the first person": ("bob:x:1001:1::/home/bob:/bin/sh\nann:x:1000:1::/home/ann:/bin/bash\n", "ann"),
    "not a service": ("svc:x:1000:1::/home/ann:/usr/sbin/nologin\nbob:x:1001:1::/home/bob:/bin/sh\n", "bob"),
    "nobody without a home": ("eve:x:1000:1::/home/eve:/bin/sh\n", "root"),
    "no names that a shell would expand": ("$(id):x:1000:1::/home/bob:/bin/sh\n", "root"),
    "no homes that a shell would expand": ("bob:x:1000:1::/home/bob;id:/bin/sh\n", "root"),
}


@pytest.mark.parametrize(("people", "expected"), USERS.values(), ids=USERS)
def test_the_key_is_for_the_first_person(tmp_path: Path, people: str, expected: str) -> None:
    passwd = f"root:x:0:0::/root:/bin/sh\n{people}"
    fill(tmp_path, {"etc/passwd": passwd, "home/ann": None, "home/bob": None})
    assert find_user(GuestTree({"/": FolderFiles(tmp_path)})).name == expected


def test_the_lines_of_a_change_are_those_that_differ(tmp_path: Path) -> None:
    edits = (
        WriteContent("/etc/a", b"one\nthree\n", 0o644, "why"),
        RemoveEntry("/etc/b", "why"),
        MakeLink("/etc/c", "/d", "why"),
    )
    fill(tmp_path, {"etc/a": "one\ntwo\x1b\n", "etc/b": "b\n"})
    plain = FolderFiles(tmp_path)
    system = LinuxSystem(
        GuestTree({"/": plain}), PlacedVolume(Volume("ext4", 1, "", "", "", "", plain), None), ()
    )
    changes = [describe_change(placed) for placed in place_edits(system, edits)]
    assert [change.lines for change in changes] == [("- two\\x1b", "+ three"), ("- b",), ("+ -> /d",)]
    assert str(changes[0]) == "/etc/a changed: why"
