"""Kernel and ramdisk of an image, by the names that distributions, tools and people give them."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from tests.support.metadata_text import read_sidecar
from tests.support.sizes import MIB
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderSets, ImageSet, Rules
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.safe_open import EntryKind
from uecwatchd.intake.spool.scan import Entry, Listing
from uecwatchd.types import FileStamp

PARTITION = Facts("ext4", "machine", layout="partition")
DISK = Facts("mbr", "machine", layout="disk")
QCOW2 = Facts("qcow2", "machine", unreadable=("it is encrypted", "Decrypt it."))
KERNEL = Facts("bzimage", "kernel")
LOADER = Facts("elf", "kernel", "i386")
MEMDISK = Facts("memdisk", "kernel")
RAMDISK = Facts("gzip", "ramdisk", inside="cpio")
FLOPPY = Facts("fat", "ramdisk", layout="partition")
FLOPPY_BYTES = 1440 * 1024
TEXT = Facts("text")
OPAQUE = Facts("zstd")
TAR = Facts("gzip", inside="tar")
FOLDER, LINK = "folder", "symlink"

Files = Mapping[str, Facts | bytes | str]
BOTH, NOTHING = frozenset({"kernel", "ramdisk"}), frozenset[str]()
UEC = Rules(5.0, Sidecar(), {"default": frozenset({"kernel"})}, {"default": BOTH}, frozenset())
OPENSTACK = Rules(5.0, Sidecar(), {"default": NOTHING}, {"default": NOTHING}, frozenset({"default"}))
EUCA4 = replace(OPENSTACK, needs={"default": BOTH}, demands={"default": BOTH})
Taken = Mapping[str, tuple[tuple[str, FileStamp], ...]]


def listing(files: Files) -> Listing:
    found = Listing(Path("/spool"), 100.0, {}, {}, {}, {}, {})
    for path, content in files.items():
        kind: EntryKind = content if content in (FOLDER, LINK) else "file"  # type: ignore[assignment]
        size = FLOPPY_BYTES if content == FLOPPY else MIB
        found.entries[path] = Entry(path.rsplit("/", 1)[-1], kind, size, stamp(path), 0.0)  # type: ignore[index]
        if isinstance(content, Facts):
            found.facts[path] = content  # type: ignore[index]
        elif isinstance(content, bytes):
            found.sidecars[path] = read_sidecar(path, content)  # type: ignore[index]
    return found


def stamp(path: str) -> FileStamp:
    return FileStamp(1, int.from_bytes(path.encode()) % 2**31, MIB, 7)


def decide(files: Files, rules: Rules = UEC, taken: Taken | None = None) -> FolderSets:
    return assemble(listing(files), rules=rules, taken=taken)


def members(found: ImageSet) -> dict[str, str]:
    return {member.role: member.path for member in found.members}


def sets(files: Files, rules: Rules = UEC, taken: Taken | None = None) -> dict[str, dict[str, str]]:
    """Of the sets that are ready, which file has which role."""
    return {found.name: members(found) for found in decide(files, rules, taken).ready}


def taken(name: str, *paths: str) -> Taken:
    return {name: tuple((path, stamp(path)) for path in paths)}


def with_sidecar(files: Files, hint: str, place: str) -> Files:
    """Do what a hint says: write its lines into the sidecar that it names."""
    assert place in hint
    lines = re.findall(r'(?:machine|kernel|ramdisk) = "(?!…|eki|none)[^"]*"', hint)
    assert lines, hint
    tomllib.loads("\n".join(lines))
    return {**files, place: "\n".join(lines).encode()}


# --- published sets ---------------------------------------------------------------------------------------

LUCID = "lucid-server-uec-amd64"
CIRROS = "cirros-0.3.0-x86_64"
TRUSTY = "trusty-server-cloudimg-amd64"
PUBLISHED: Mapping[str, tuple[Files, str, str, str]] = {
    "ubuntu uec": (
        {
            f"{LUCID}.img": PARTITION,
            f"{LUCID}-vmlinuz-virtual": KERNEL,
            f"{LUCID}-initrd-virtual": RAMDISK,
            f"{LUCID}-floppy": FLOPPY,
            f"{LUCID}-loader": LOADER,
        },
        LUCID,
        f"{LUCID}-vmlinuz-virtual",
        f"{LUCID}-initrd-virtual",
    ),
    "cirros": (
        {f"{CIRROS}-blank.img": PARTITION, f"{CIRROS}-vmlinuz": KERNEL, f"{CIRROS}-initrd": RAMDISK},
        f"{CIRROS}-blank",
        f"{CIRROS}-vmlinuz",
        f"{CIRROS}-initrd",
    ),
    "ubuntu cloud image": (
        {
            f"{TRUSTY}-disk1.img": DISK,
            f"{TRUSTY}-vmlinuz-generic": KERNEL,
            f"{TRUSTY}-initrd-generic": OPAQUE,
            f"{TRUSTY}-root.tar.gz": TAR,
            f"{TRUSTY}.manifest": TEXT,
        },
        f"{TRUSTY}-disk1",
        f"{TRUSTY}-vmlinuz-generic",
        f"{TRUSTY}-initrd-generic",
    ),
    "words alone": (
        {"web.img": PARTITION, "web-kernel": KERNEL, "web-ramdisk": RAMDISK},
        "web",
        "web-kernel",
        "web-ramdisk",
    ),
    "a dot before the word": (
        {"web.raw": PARTITION, "web.vmlinuz-virtual": KERNEL, "web.initrd-virtual.gz": RAMDISK},
        "web",
        "web.vmlinuz-virtual",
        "web.initrd-virtual.gz",
    ),
    "other letters": (
        {"Web.IMG": PARTITION, "web-VMLINUZ-virtual": KERNEL, "WEB-initrd": RAMDISK},
        "Web",
        "web-VMLINUZ-virtual",
        "WEB-initrd",
    ),
    "endings of images": (
        {"web.img": PARTITION, "web-kernel.bin": KERNEL, "web-initrd.img": RAMDISK},
        "web",
        "web-kernel.bin",
        "web-initrd.img",
    ),
    "the name behind the word": (
        {"web.img": PARTITION, "vmlinuz-web": KERNEL, "initrd-web.img": RAMDISK},
        "web",
        "vmlinuz-web",
        "initrd-web.img",
    ),
    "with a sidecar": (
        {
            "web.toml": b'machine = "base.img"',
            "base.img": PARTITION,
            "web-vmlinuz": KERNEL,
            "web-initrd": RAMDISK,
        },
        "web",
        "web-vmlinuz",
        "web-initrd",
    ),
    "memdisk and its floppy": (
        {"win.img": DISK, "win-memdisk": MEMDISK, "win-floppy": FLOPPY},
        "win",
        "win-memdisk",
        "win-floppy",
    ),
}


@pytest.mark.parametrize(("files", "name", "kernel", "ramdisk"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_published_set_is_assembled_as_it_comes(files: Files, name: str, kernel: str, ramdisk: str) -> None:
    (found,) = decide(files).ready
    assert found.name == name
    assert (members(found)["kernel"], members(found)["ramdisk"]) == (kernel, ramdisk)
    assert not decide(files).waiting
    assert not decide(files).refused


@pytest.mark.parametrize("files", [row[0] for row in PUBLISHED.values()], ids=PUBLISHED)
def test_a_published_set_is_assembled_in_whatever_order_its_files_come(files: Files) -> None:
    for order in permutations(files.items(), len(files)):
        assert sets(dict(order)) == sets(files)


@pytest.mark.parametrize("files", [row[0] for row in PUBLISHED.values()], ids=PUBLISHED)
def test_a_published_set_is_assembled_from_a_folder_as_well(files: Files) -> None:
    inside = {f"one/{path}": content for path, content in files.items() if not path.endswith(".toml")}
    (found,) = decide({"one": FOLDER, **inside}).ready
    assert list(members(found)) == ["kernel", "ramdisk", "machine"]


@pytest.mark.parametrize("files", [row[0] for row in PUBLISHED.values()], ids=PUBLISHED)
def test_an_image_that_needs_a_kernel_is_never_ready_before_it(files: Files) -> None:
    left = {path: content for path, content in files.items() if content not in (KERNEL, MEMDISK)}
    assert not [one for one in decide(left).ready if not one.from_image]


def test_what_a_published_set_leaves_out_is_reported() -> None:
    (files, *_) = PUBLISHED["ubuntu uec"]
    assert {one.path for one in decide(files).unmatched} == {f"{LUCID}-floppy", f"{LUCID}-loader"}


def test_a_loader_and_its_floppy_are_never_taken_for_kernel_and_ramdisk() -> None:
    (found,) = decide({"web.img": PARTITION, "web-loader": LOADER, "web-floppy": FLOPPY}).ready
    assert members(found) == {"machine": "web.img"}


@pytest.mark.parametrize("image", ["web.img", "web-disk1.img"])
def test_an_image_that_boots_by_itself_needs_no_kernel_that_is_lent_to_it(image: str) -> None:
    files = {image: DISK, "web-vmlinuz": KERNEL, "web-initrd": RAMDISK}
    (found,) = decide(files, OPENSTACK).ready
    assert (found.virtualization == "hvm") == (image == "web-disk1.img")
    assert set(members(found)) == ({"machine"} if image == "web-disk1.img" else {"machine", *BOTH})


def test_a_blank_image_takes_its_kernel_where_the_cloud_would_not_ask_for_one() -> None:
    (files, name, *_) = PUBLISHED["cirros"]
    assert set(sets(files, OPENSTACK)[name]) == {"machine", "kernel", "ramdisk"}


def test_a_kernel_goes_with_the_image_whose_name_is_all_of_its_own_before_the_word() -> None:
    files = {
        "web.img": PARTITION,
        "web-vmlinuz": KERNEL,
        "web-initrd": RAMDISK,
        "web-db.img": PARTITION,
        "web-db-vmlinuz": KERNEL,
        "web-db-initrd": RAMDISK,
        "web-kernel.img": PARTITION,
        "web-kernel-vmlinuz": KERNEL,
        "web-kernel-initrd": RAMDISK,
    }
    assert sets(files) == {
        name: {"kernel": f"{name}-vmlinuz", "ramdisk": f"{name}-initrd", "machine": f"{name}.img"}
        for name in ("web", "web-db", "web-kernel")
    }


def test_an_image_takes_none_that_another_is_named_for() -> None:
    files = {"web.img": PARTITION, "web-blank.img": PARTITION, "web-vmlinuz": KERNEL, "web-initrd": RAMDISK}
    assert sets(files)["web-blank"] == {"machine": "web-blank.img"}
    assert sets(files)["web"]["kernel"] == "web-vmlinuz"


def test_images_of_one_system_share_its_kernel() -> None:
    files = {"x-blank.img": PARTITION, "x-disk.img": DISK, "x-vmlinuz": KERNEL, "x-initrd": RAMDISK}
    assert {members["kernel"] for members in sets(files).values()} == {"x-vmlinuz"}
    assert len(sets(files)) == 2


@pytest.mark.parametrize(
    "stray",
    [
        "web-vmlinuz.sig",
        "web-kernel.log",
        "web-kernel-config",
        "web-initrd.txt",
        "web-vmlinuz-generic.manifest",
    ],
)
def test_logs_and_signatures_are_no_kernels_whatever_they_are_named_after(stray: str) -> None:
    files = {"web.img": PARTITION, "web-vmlinuz": KERNEL, "web-initrd": RAMDISK}
    assert sets({**files, stray: TEXT}) == sets(files)
    assert sets({**files, stray: Facts("unknown")}) == sets(files)


def test_two_flavours_are_refused_and_a_kernel_proposed_with_its_own_ramdisk() -> None:
    files: Files = {
        "web.img": PARTITION,
        "web-vmlinuz-generic": KERNEL,
        "web-vmlinuz-virtual": KERNEL,
        "web-initrd-aws": RAMDISK,
        "web-initrd-generic": RAMDISK,
        "web-initrd-virtual": RAMDISK,
    }
    (refused,) = decide(files).refused
    assert refused.error.what == "two kernels in web"
    assert refused.error.why == "web-vmlinuz-generic and web-vmlinuz-virtual could both be meant"
    assert sets(with_sidecar(files, refused.error.hint, "web.toml")) == {
        "web": {"kernel": "web-vmlinuz-generic", "ramdisk": "web-initrd-generic", "machine": "web.img"}
    }


# --- kernels in folders of their own ----------------------------------------------------------------------

KVM: Files = {"kvm-kernel": FOLDER, "kvm-kernel/vmlinuz-2.6.28": KERNEL, "kvm-kernel/initrd-2.6.28": RAMDISK}
XEN: Files = {"xen-kernel": FOLDER, "xen-kernel/vmlinuz-2.6.27": KERNEL, "xen-kernel/initrd-2.6.27": RAMDISK}


@pytest.mark.parametrize(
    ("folders", "named"),
    [(KVM, "kvm-kernel/ "), ({**KVM, **XEN}, "kvm-kernel/ or xen-kernel/ "), ({**XEN}, "xen-kernel/ ")],
)
def test_an_image_that_wants_a_kernel_is_shown_folders_of_kernels(folders: Files, named: str) -> None:
    waiting = {one.name: one.reason for one in decide({"ubuntu.img": PARTITION, **folders}).waiting}
    assert waiting["ubuntu"].endswith(
        f"; or move the kernel and ramdisk that it wants out of {named}beside it"
    )
    moved = {path.rsplit("/", 1)[-1]: kind for path, kind in folders.items() if kind in (KERNEL, RAMDISK)}
    if len(moved) == 2:
        assert "ubuntu" in sets({"ubuntu.img": PARTITION, **moved})


@pytest.mark.parametrize("below", ["kvm-kernel", "xen-kernel", "unpacked", "boot"])
def test_a_folder_in_a_sets_folder_is_named_while_a_kernel_is_missing(below: str) -> None:
    files: Files = {"u": FOLDER, "u/u.img": PARTITION, f"u/{below}": FOLDER}
    (waiting,) = decide(files).waiting
    assert waiting.reason.endswith(
        f"; or move the kernel and ramdisk that it wants out of u/{below}/ into u/"
    )


def test_a_folder_of_kernels_says_how_to_register_them_alone() -> None:
    (waiting,) = decide(KVM).waiting
    assert waiting.reason.startswith("a machine image in kvm-kernel/; to register what is there alone, say ")
    corrected = with_sidecar(KVM, waiting.reason, "kvm-kernel/image.toml")
    assert set(sets(corrected)["kvm-kernel"]) == {"kernel", "ramdisk"}


# --- loose pairs ------------------------------------------------------------------------------------------

WEB: Files = {"web.img": PARTITION, "vmlinuz-2.6.28": KERNEL, "initrd.img-2.6.28": RAMDISK}
ARCH: Files = {
    "vmlinuz-linux": KERNEL,
    "initramfs-linux.img": RAMDISK,
    "initramfs-linux-fallback.img": RAMDISK,
}
RESCUE = "0-rescue-9a1d3c5e7f0b4d2c8a6e1f3b5d7c9e0a"
GENTOO: Files = {
    "kernel-genkernel-x86_64-5.4.0-gentoo": KERNEL,
    "initramfs-genkernel-x86_64-5.4.0-gentoo": RAMDISK,
}
BESIDE: Mapping[str, Files] = {
    "arch": ARCH,
    "dracut rescue": {f"vmlinuz-{RESCUE}": KERNEL, f"initramfs-{RESCUE}.img": RAMDISK},
    "dkms": {"initrd.img-2.6.28.old-dkms": RAMDISK},
    "kdump of SUSE": {"initrd-2.6.28-kdump": RAMDISK},
    "kdump of Red Hat": {"initramfs-2.6.28kdump.img": RAMDISK},
    "map and configuration": {"System.map-2.6.28": TEXT, "config-2.6.28": TEXT},
    "microcode": {"intel-ucode.img": Facts("cpio", "ramdisk"), "amd-ucode.img": Facts("cpio", "ramdisk")},
    "links": {"vmlinuz": LINK, "initrd.img": LINK},
    "put aside": {"vmlinuz.old": KERNEL, "initrd.img.old": RAMDISK, "initrd.img-2.6.28.old": RAMDISK},
    "no version at all": {"vmlinuz": KERNEL, "initrd": RAMDISK, "initrd.img": RAMDISK, "initrd.gz": RAMDISK},
    "a kernel alone": {"vmlinuz-3.2": KERNEL},
    "two ramdisks alone": {"initrd-3.2": RAMDISK, "initrd.img-3.2": RAMDISK},
}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_an_impossible_kernel_does_not_hold_an_image(beside: Files) -> None:
    expected = {"web": {"kernel": "vmlinuz-2.6.28", "ramdisk": "initrd.img-2.6.28", "machine": "web.img"}}
    for files in ({**WEB, **beside}, {**beside, **WEB}):
        assert sets(files) == expected
        assert not decide(files).refused


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_every_file_beside_an_image_that_is_not_its_own_is_reported(beside: Files) -> None:
    assembly = decide({**WEB, **beside})
    waiting = {path for one in assembly.waiting for path in one.files}
    assert {one.path for one in assembly.unmatched} | waiting == set(beside)


@pytest.mark.parametrize(
    ("pair", "kernel", "ramdisk"),
    [
        (ARCH, "vmlinuz-linux", "initramfs-linux.img"),
        (GENTOO, *GENTOO),
        ({"vmlinuz": KERNEL, "initrd.img": RAMDISK}, "vmlinuz", "initrd.img"),
        (
            {"vmlinuz-5.4.efi.signed": KERNEL, "initrd.img-5.4": RAMDISK},
            "vmlinuz-5.4.efi.signed",
            "initrd.img-5.4",
        ),
    ],
    ids=["arch", "gentoo", "bare", "signed"],
)
def test_a_pair_needs_no_plain_version_to_be_one(pair: Files, kernel: str, ramdisk: str) -> None:
    found = sets({"web.img": PARTITION, **pair})["web"]
    assert (found["kernel"], found["ramdisk"]) == (kernel, ramdisk)


TWICE: Files = {"web.img": PARTITION, "vmlinuz-3.2": KERNEL, "initrd-3.2": RAMDISK, "initrd.img-3.2": RAMDISK}


def test_two_ramdisks_of_one_version_hold_only_images_that_could_need_them() -> None:
    files: Files = {
        **TWICE,
        "db.img": PARTITION,
        "db.vmlinuz": KERNEL,
        "db.initrd": RAMDISK,
        "old.img": PARTITION,
    }
    held = {"vmlinuz-2.6": KERNEL, "initrd-2.6": RAMDISK}
    assembly = decide({**files, **held}, taken=taken("old", "old.img", *held))
    assert {found.name for found in assembly.ready} == {"db", "old"}
    assert [one.name for one in assembly.refused] == ["web"]


@pytest.mark.parametrize(
    "files",
    [
        TWICE,
        {**WEB, "vmlinuz-3.2": KERNEL, "initrd-3.2": RAMDISK},
        {"web.img": PARTITION, "vmlinuz-3.2": KERNEL, "vmlinux-3.2": LOADER, "initrd-3.2": RAMDISK},
    ],
    ids=["two ramdisks", "two versions", "two kernels"],
)
def test_what_is_proposed_for_a_loose_image_works(files: Files) -> None:
    (refused,) = decide(files).refused
    assert set(sets(with_sidecar(files, refused.error.hint, "web.toml"))["web"]) == {"machine", *BOTH}


def test_a_loose_file_that_cannot_serve_is_no_candidate_beside_one_that_can() -> None:
    files = {**WEB, "initrd-2.6.28": TEXT}
    assert sets(files)["web"]["ramdisk"] == "initrd.img-2.6.28"


# --- what hints propose -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "place"),
    [
        (
            {"web.qcow2": QCOW2, "web.raw": PARTITION, "web.vmlinuz": KERNEL, "web.initrd": RAMDISK},
            "web.toml",
        ),
        ({"web.img": QCOW2, "web.raw": PARTITION, "web-vmlinuz": KERNEL, "web-initrd": RAMDISK}, "web.toml"),
        (
            {
                "web": FOLDER,
                "web/a": Facts("text"),
                "web/a.img": TEXT,
                "web/b.img": PARTITION,
                "web/k": KERNEL,
                "web/r": RAMDISK,
            },
            "web/image.toml",
        ),
        (
            {
                "web": FOLDER,
                "web/a": FLOPPY,
                "web/b": RAMDISK,
                "web/c": RAMDISK,
                "web/k": MEMDISK,
                "web/l": KERNEL,
                "web/web.img": PARTITION,
            },
            "web/image.toml",
        ),
    ],
    ids=["qcow2 and raw", "qcow2 called img", "a text called img", "memdisk, Linux and a floppy"],
)
def test_of_several_one_that_can_serve_is_proposed(files: Files, place: str) -> None:
    (refused,) = decide(files).refused
    corrected = with_sidecar(files, refused.error.hint.replace("image.toml", "web/image.toml"), place)
    assert list(sets(corrected)) == ["web"], decide(corrected)


def test_of_several_that_cannot_serve_none_is_proposed() -> None:
    files = {"web.qcow2": QCOW2, "web.img": QCOW2, "web.vmlinuz": KERNEL, "web.initrd": RAMDISK}
    (refused,) = decide(files).refused
    assert refused.error.hint == "None of them can serve: remove all but one to see why."


@pytest.mark.parametrize("ramdisk", ["web/floppy", "web/boot.img", "web/web-floppy.img"])
def test_a_floppy_beside_the_ramdisk_of_a_linux_kernel_is_not_in_the_way(ramdisk: str) -> None:
    files = {"web": FOLDER, "web/d.img": PARTITION, "web/k": KERNEL, "web/initrd": RAMDISK, ramdisk: FLOPPY}
    assert sets(files)["web"]["ramdisk"] == "web/initrd"
    assert ramdisk in {one.path for one in decide(files).unmatched}


@pytest.mark.parametrize(
    "files",
    [
        {"web.img": PARTITION, "web.vmlinuz": KERNEL, "web.initrd": FLOPPY},
        {"web.img": PARTITION, "web.vmlinuz": KERNEL, "f": FLOPPY, "web.toml": b'ramdisk = "f"'},
        {"web.img": PARTITION, "vmlinuz-3.2": KERNEL, "initrd-3.2": FLOPPY},
    ],
    ids=["by its name", "by a sidecar", "loose"],
)
def test_a_floppy_is_no_ramdisk_of_a_linux_kernel(files: Files) -> None:
    (refused,) = decide(files).refused
    assert "it cannot be the ramdisk of" in refused.error.what
    assert refused.error.why == "it is a FAT file system, as memdisk starts it, and the kernel is Linux"


@pytest.mark.parametrize(
    ("files", "rules", "absent"),
    [
        ({"web.img": PARTITION}, EUCA4, ('kernel = "none"', "hvm")),
        ({"web.img": PARTITION, "web.vmlinuz": KERNEL}, EUCA4, ('ramdisk = "none"',)),
        ({"web.img": DISK, "web.toml": b'virtualization = "paravirtual"'}, UEC, ("hvm",)),
    ],
    ids=["no kernel", "no ramdisk", "no disk boots by itself"],
)
def test_nothing_is_proposed_that_the_cloud_refuses(
    files: Files, rules: Rules, absent: tuple[str, ...]
) -> None:
    decided = decide(files, rules)
    (reason,) = [
        *(one.reason for one in decided.waiting),
        *(one.from_image.otherwise for one in decided.ready if one.from_image),
    ]
    assert not [words for words in absent if words in reason], reason


# --- kernels and ramdisks alone ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("vmlinuz-2.6.31", KERNEL),
        ("memdisk", MEMDISK),
        ("initrd.img-2.6.31", RAMDISK),
        ("web-vmlinuz", KERNEL),
        ("kernel-genkernel-x86_64-5.4.0-gentoo", KERNEL),
        ('vmlinuz "new"', KERNEL),
        ("vmlinuz-c\\d", KERNEL),
    ],
)
def test_a_lone_boot_file_is_told_what_to_write_for_it_to_be_registered(path: str, content: Facts) -> None:
    (misfit,) = decide({path: content}).unmatched
    words = re.fullmatch(
        r"a (?P<role>\w+) that .*; to register it alone, write (?P<file>.+), and in it: (?P<line>.+)",
        misfit.reason,
    )
    assert words is not None, misfit.reason
    assert sets({path: content, words["file"]: words["line"].encode()}) == {path: {words["role"]: path}}


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({"web.vmlinuz": KERNEL}, "web.toml"),
        ({"web.vmlinuz": KERNEL, "web.initrd": RAMDISK}, "web.toml"),
        ({"web": FOLDER, "web/vmlinuz": KERNEL}, "web/image.toml"),
        ({"web.toml": b"", "web.initrd": RAMDISK}, "web.toml"),
    ],
    ids=["kernel", "both", "folder", "empty sidecar"],
)
def test_a_set_without_an_image_says_how_to_register_what_is_there(files: Files, place: str) -> None:
    (waiting,) = decide(files).waiting
    assert "; to register what is there alone, say " in waiting.reason
    assert set(sets(with_sidecar(files, waiting.reason, place))["web"]) <= BOTH


@pytest.mark.parametrize("content", [TEXT, Facts("unknown"), Facts("empty")], ids=lambda facts: facts.format)
def test_no_command_is_proposed_for_a_file_that_is_no_kernel(content: Facts) -> None:
    (misfit,) = decide({"vmlinuz-2.6.31": content}).unmatched
    assert "alone" not in misfit.reason


@pytest.mark.parametrize("stray", ["vmlinuz-2.6.28-11-server.toml", "initrd.img-2.6.28-11-server.json"])
def test_a_sidecar_that_bears_the_name_of_a_loose_kernel_holds_the_image_that_takes_it(stray: str) -> None:
    pair: Files = {"vmlinuz-2.6.28-11-server": KERNEL, "initrd.img-2.6.28-11-server": RAMDISK}
    found = decide(
        {
            "image.img": PARTITION,
            **pair,
            stray: b'{"public": false}' if "json" in stray else b"public = false",
        }
    )
    assert not found.ready
    assert stray in str(next(one.error for one in found.refused if one.name == "image"))


def test_a_kernel_that_a_sidecar_registers_alone_holds_no_image_of_a_like_name() -> None:
    files: Files = {"lucid.img": PARTITION, "lucid-vmlinuz-virtual": KERNEL, "lucid-initrd-virtual": RAMDISK}
    alone: Files = {"lucid-floppy": FLOPPY, "lucid-floppy.toml": b'ramdisk = "lucid-floppy"'}
    assert sets({**files, **alone}).keys() == {"lucid", "lucid-floppy"}
