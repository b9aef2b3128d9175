"""Members of one folder who do not trust each other: the rules, on listings made up here."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.intake.sets.test_assemble import UEC, decide, listing, members
from tests.support.sizes import MIB
from uecwatchd.intake.misnamed_sidecars import SidecarWords
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderSets, FolderUsers, ImageSet
from uecwatchd.intake.spool.scan import Entry, Listing
from uecwatchd.types import FileStamp

ROOT, SERVICE, ALICE, BOB, CAROL = 0, 990, 1001, 1002, 1003
NAMES = {ROOT: "root", SERVICE: "uecwatchd", ALICE: "alice", BOB: "bob", CAROL: "carol"}
USERS = FolderUsers(frozenset({ROOT, SERVICE}), lambda uid: NAMES[uid])
SEPARATE = replace(UEC, users=USERS)
Files = Mapping[str, tuple[int, str | bytes]]

NONE = b'kernel = "none"'
STEM: Files = {
    "web.img": (ALICE, "partition"),
    "web.vmlinuz": (ALICE, "kernel"),
    "web.initrd": (ALICE, "ramdisk"),
}
FOLDER: Files = {
    "web": (ALICE, "folder"),
    "web/disk": (ALICE, "partition"),
    "web/linux": (ALICE, "kernel"),
    "web/early": (ALICE, "ramdisk"),
}
TRIO: Files = {
    "web.img": (ALICE, "partition"),
    "vmlinuz-1": (ALICE, "kernel"),
    "initrd-1": (ALICE, "ramdisk"),
}
NAMED: Files = {
    "web.toml": (ALICE, b'machine = "base.img"\nkernel = "vmlinuz-1"\nramdisk = "initrd-1"'),
    "base.img": (ALICE, "partition"),
    "vmlinuz-1": (ALICE, "kernel"),
    "initrd-1": (ALICE, "ramdisk"),
}
FORMS = {"stem": STEM, "folder": FOLDER, "trio": TRIO, "named": NAMED}


def owned(files: Files) -> Listing:
    """The later a file is listed here, the later it was dropped."""
    hidden = {path: owner for path, (owner, content) in files.items() if content == "hidden"}
    files = {path: one for path, one in files.items() if path not in hidden}
    late = frozenset(path for path, (_, content) in files.items() if content == "late")
    made = listing({path: b"" if path in late else content for path, (_, content) in files.items()})
    made = replace(made, ignored=dict.fromkeys(hidden, "*"), ignored_of=hidden, unread=late)
    entries: dict[str, Entry] = {}
    for number, (path, (owner, _)) in enumerate(files.items()):
        entry = made.entries[path]
        entries[path] = replace(entry, owner=owner, stamp=FileStamp(1, number, MIB, number))
    return replace(made, entries=entries)


def decided(files: Files, holders: Mapping[str, int] | None = None) -> FolderSets:
    return assemble(owned(files), rules=SEPARATE, holders=holders or {})


def ready(files: Files, name: str = "web", holders: Mapping[str, int] | None = None) -> ImageSet:
    assembly = decided(files, holders)
    found = {one.name: one for one in assembly.ready}
    assert name in found, assembly
    return found[name]


def misfit(files: Files, path: str, holders: Mapping[str, int] | None = None) -> str:
    (reason,) = (m.reason for m in decided(files, holders).unmatched if m.path == path)
    return reason


BOBS: Mapping[str, Files] = {
    "a sidecar": {"web.toml": (BOB, b'public = true\nkernel = "none"')},
    "another sidecar": {"web.json": (BOB, b'{"public": true}')},
    "a broken sidecar": {"web.toml": (BOB, b"public = maybe")},
    "a second kernel": {"web.kernel": (BOB, "kernel")},
    "a second ramdisk": {"web.ramdisk": (BOB, "ramdisk")},
    "a second machine image": {"web.raw": (BOB, "partition")},
    "a namesake of no kind": {"web": (BOB, "partition")},
    "sums": {"web.sha256": (BOB, b"%b  web.img\n" % (b"0" * 64))},
    "a pipe named as a member": {"web.qcow2": (BOB, "fifo")},
    "a link named as a sidecar": {"web.json": (BOB, "symlink")},
    "a folder named as sums": {"web.sha256": (BOB, "folder")},
    "a folder": {"web": (BOB, "folder"), "web/disk": (BOB, "partition")},
    "a claim to all": {
        "evil.toml": (BOB, b'machine = "web.img"\nkernel = "vmlinuz-1"\nramdisk = "initrd-1"'),
        "evil2.toml": (BOB, b'machine = "base.img"\nkernel = "web.vmlinuz"\nramdisk = "web.initrd"'),
    },
    "a second loose pair": {"vmlinuz-2": (BOB, "kernel"), "initrd-2": (BOB, "ramdisk")},
    "a sidecar in capitals": {"Web.TOML": (BOB, b"public = true")},
    "a sidecar named nearly so": {
        "web.img.toml": (BOB, b"public = true"),
        "wep.toml": (BOB, b"public = true"),
    },
    "a sidecar that is not read yet": {"aaa.toml": (BOB, "late")},
    "a sidecar for any": {"sidecar.toml": (BOB, b"public = true")},
    "a copy of a sidecar that is passed over": {
        "web.toml~": (BOB, "hidden"),
        ".web.toml.swp": (BOB, "hidden"),
    },
    "the note of a download": {"web.img.aria2": (BOB, "hidden"), "base.img.part": (BOB, "hidden")},
    "sums of all": {"SHA256SUMS": (BOB, b"%b  web.img\n%b  base.img\n" % (b"0" * 64, b"1" * 64))},
    "sums of one": {"web.img.sha256": (BOB, b"%b  web.img\n" % (b"0" * 64))},
    "sums that nobody can read": {"SHA256SUMS": (BOB, "symlink")},
    "a published kernel": {"web-vmlinuz-virtual": (BOB, "kernel"), "web-initrd-virtual": (BOB, "ramdisk")},
    "a kernel published otherwise": {"vmlinuz-web": (BOB, "kernel"), "initrd-web.img": (BOB, "ramdisk")},
    "a folder in capitals": {"WEB": (BOB, "folder"), "WEB/disk": (BOB, "partition")},
    "a second kernel of one version": {"vmlinux-1": (BOB, "kernel")},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("planted", BOBS)
@pytest.mark.parametrize("first", ["alice", "bob"])
def test_files_of_another_member_never_change_a_set(form: str, planted: str, first: str) -> None:
    """First or last: until the name has an owner, an owner of a machine image goes before others."""
    theirs = {path: one for path, one in BOBS[planted].items() if path not in FORMS[form]}
    machine = "partition" in {content for _, content in theirs.values()}
    files = {**theirs, **FORMS[form]} if first == "bob" and not machine else {**FORMS[form], **theirs}
    alone, beside = ready(FORMS[form]), ready(files)
    assert members(beside) == members(alone)
    assert (beside.sidecar, beside.checksums, beside.files) == (alone.sidecar, alone.checksums, alone.files)
    assert beside.owner == ALICE


BEARING = {
    path: files
    for files in BOBS.values()
    for path, (_, content) in files.items()
    if content != "hidden" and path.lower().split("/")[0].split(".")[0] == "web" and path != "web.img.toml"
}


@pytest.mark.parametrize("path", BEARING)
def test_what_is_left_out_for_its_owner_is_reported_with_both_names(path: str) -> None:
    files = {**STEM, **BEARING[path]}
    assert "it belongs to bob, and the set web to alice: only files" in misfit(files, path)
    assert "left out: " in str(ready(files).unread)
    assert "bob, the set web to alice" in str(ready(files).unread)
    assert not ready(STEM).unread


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("owner", [ROOT, SERVICE])
def test_files_of_root_and_of_the_service_count_for_all_owners(form: str, owner: int) -> None:
    for path, (_, content) in FORMS[form].items():
        if content not in ("partition", "folder"):
            found = ready({**FORMS[form], path: (owner, content)})
            assert members(found) == members(ready(FORMS[form]))
            assert found.owner == ALICE


def test_one_owners_folder_works_as_ever() -> None:
    for files in FORMS.values():
        for owner in (ROOT, SERVICE, ALICE):
            found = ready({path: (owner, content) for path, (_, content) in files.items()})
            plain = {path: content for path, (_, content) in files.items()}
            assert members(found) == members(decide(plain).ready[0])
            assert found.owner == owner


def test_in_a_folder_of_one_team_all_files_count() -> None:
    files = {**STEM, "web.vmlinuz": (BOB, "kernel"), "web.toml": (CAROL, b"public = true")}
    (found,) = assemble(owned(files), rules=UEC).ready
    assert found.sidecar.public
    assert found.owner is None


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            {**STEM, "web.vmlinuz": (BOB, "kernel")},
            'kernel = "none" in web.toml); '
            "web.vmlinuz belongs to bob, the set web to alice: only files of one owner make a set",
        ),
        (
            {**TRIO, "vmlinuz-1": (BOB, "kernel"), "initrd-1": (BOB, "ramdisk")},
            "initrd-1 belongs to bob, the set web to alice: only files of one owner make a set",
        ),
        (
            {**NAMED, "base.img": (BOB, "partition")},
            "base.img (named in web.toml); base.img belongs to bob, the set web to alice",
        ),
        (
            {**NAMED, "vmlinuz-1": (BOB, "kernel")},
            "vmlinuz-1 (named in web.toml); vmlinuz-1 belongs to bob, the set web to alice",
        ),
        (
            {**NAMED, "base.img": (ROOT, "partition")},
            "files of its own: base.img belongs to root, the set web to alice",
        ),
        ({**FOLDER, "web/linux": (BOB, "kernel")}, "web/linux belongs to bob, the set web to alice"),
        ({**FOLDER, "web/disk": (ROOT, "partition")}, "web/disk belongs to root, the set web to alice"),
    ],
    ids=[
        "stem",
        "loose",
        "named machine",
        "named kernel",
        "root's machine",
        "in a folder",
        "root's in a folder",
    ],
)
def test_a_set_that_lacks_what_another_has_says_whose_it_is(files: Files, reason: str) -> None:
    found = decided(files)
    reasons = {one.name: one.reason for one in found.waiting}
    reasons |= {one.name: one.from_image.otherwise for one in found.ready if one.from_image}
    assert reason in reasons["web"]


def test_no_member_registers_files_of_root_alone() -> None:
    kernel = {"vmlinuz-1": (ROOT, "kernel"), "mine.toml": (BOB, b'kernel = "vmlinuz-1"\npublic = true')}
    (waiting,) = decided(kernel).waiting
    assert waiting.reason.startswith("files of its own: vmlinuz-1 belongs to root")
    image = {"gold.img": (ROOT, "partition"), "gold.toml": (BOB, b'public = true\nkernel = "none"')}
    (gold,) = decided(image).ready
    assert (gold.owner, gold.sidecar.public) == (ROOT, False)
    assert "it belongs to bob, and the set gold to root or the service" in misfit(image, "gold.toml")


def test_a_sidecar_of_roots_makes_a_set_of_the_members_image_that_it_names() -> None:
    files = {"web.toml": (ROOT, b'machine = "base.img"\nkernel = "none"'), "base.img": (ALICE, "partition")}
    assert ready(files).owner == ALICE
    assert ready({**files, "web.raw": (BOB, "partition")}).owner == ALICE


def test_a_set_in_a_folder_of_root_belongs_to_the_owner_of_its_image() -> None:
    files = {**FOLDER, "web": (ROOT, "folder"), "web/image.toml": (BOB, b"public = true")}
    found = ready(files)
    assert (found.owner, found.sidecar.public) == (ALICE, False)
    assert "it belongs to bob, and the set web to alice" in misfit(files, "web/image.toml")


def test_files_in_the_folder_of_another_member_do_not_count() -> None:
    """The owner of a folder can rename all that is in it."""
    files = {
        "web": (BOB, "folder"),
        "web/disk": (ALICE, "partition"),
        "web/image.toml": (ALICE, NONE),
        "web/boot": (BOB, "kernel"),
    }
    assembly = decided(files)
    assert not assembly.ready
    assert "it belongs to alice, and the set web to bob" in misfit(files, "web/disk")


def test_a_name_keeps_its_owner_while_that_set_exists() -> None:
    bobs: Files = {path: (BOB, content) for path, (_, content) in STEM.items()}
    assembly = decided(bobs, {"web": ALICE})
    assert not assembly.ready + assembly.waiting + assembly.refused  # type: ignore[operator]
    assert "it belongs to bob, and the set web to alice" in misfit(bobs, "web.img", {"web": ALICE})
    assert ready(bobs).owner == BOB


def test_of_two_sets_with_one_name_the_older_file_has_it() -> None:
    theirs: Files = {"web": (BOB, "folder"), "web/disk": (BOB, "partition"), "web/image.toml": (BOB, NONE)}
    assert ready({**STEM, **theirs}).owner == ALICE
    assert ready({**theirs, **STEM}).owner == BOB


def test_an_older_ledger_keeps_the_name_of_a_finished_set_for_its_owner() -> None:
    files = {"web.raw": (BOB, "partition"), **STEM}
    made = owned(files)
    taken = {"web": [("web.img", made.entries["web.img"].stamp)]}
    (found,) = assemble(made, rules=SEPARATE, taken=taken).ready
    assert found.owner == ALICE


def test_root_takes_over_a_name_whose_owner_has_no_file() -> None:
    roots: Files = {path: (ROOT, content) for path, (_, content) in STEM.items()}
    assert ready(roots, holders={"web": ALICE}).owner == ROOT
    assert ready({**STEM, "web.toml": (ROOT, b"public = true")}, holders={"web": ALICE}).sidecar.public


def test_a_finished_set_does_not_keep_a_loose_pair_from_other_owners() -> None:
    pair: Files = {"vmlinuz-1": (ROOT, "kernel"), "initrd-1": (ROOT, "ramdisk")}
    files: Files = {**pair, "web.img": (ALICE, "partition"), "shop.img": (BOB, "partition")}
    made = owned(files)
    taken = {"shop": [(path, made.entries[path].stamp) for path in pair]}
    assembly = assemble(made, rules=SEPARATE, taken=taken)
    assert [found.name for found in assembly.ready] == ["shop", "web"]
    assert not assembly.unmatched


def test_an_unused_file_for_all_owners_is_reported_once() -> None:
    files: Files = {
        **STEM,
        "vmlinuz-9": (ROOT, "kernel"),
        "note.txt": (ROOT, "text"),
        "shop.img": (BOB, "partition"),
    }
    unmatched = [m.path for m in decided(files).unmatched]
    assert unmatched == ["note.txt", "vmlinuz-9"]


def test_shared_files_of_root_do_not_leave_with_a_set() -> None:
    files: Files = {**NAMED, "vmlinuz-1": (ROOT, "kernel")}
    files = {**files, "web.sha256": (ROOT, b"%b  base.img\n" % (b"0" * 64))}
    found = ready(files)
    assert found.shared == ("vmlinuz-1",)


@pytest.mark.parametrize("name", ["wbe-01.conf", "web-01-site.txt", "web-01toml"])
def test_a_text_of_another_owner_that_looks_like_a_sidecar_holds_nothing(name: str) -> None:
    files: Files = {path.replace("web", "web-01"): one for path, one in STEM.items()}

    def ready_beside(owner: int) -> list[str]:
        found = replace(owned({**files, name: (owner, "text")}), words={name: SidecarWords(("public",))})
        return [one.name for one in assemble(found, rules=SEPARATE).ready]

    assert (ready_beside(ALICE), ready_beside(BOB)) == ([], ["web-01"])


def test_a_sidecar_in_the_folder_of_another_owner_holds_nothing() -> None:
    files: Files = {"his": (BOB, "folder"), "his/web.toml": (BOB, b"public = false"), **STEM}
    assert ready(files)
    assert not decided({path: (ALICE, content) for path, (_, content) in files.items()}).ready
