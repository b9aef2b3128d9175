"""The rules on listings made up here: no file is opened, no clock is read."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.metadata_text import read_checksums, read_sidecar
from tests.support.sizes import MIB
from uecwatchd.errors import Halted, Rejected
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.candidates import stem_of
from uecwatchd.intake.sets.records import FolderSets, ImageSet, Rules
from uecwatchd.intake.sidecar import Sidecar, read_defaults
from uecwatchd.intake.spool.safe_open import EntryKind
from uecwatchd.intake.spool.scan import Entry, Listing
from uecwatchd.types import FileStamp

Files = Mapping[str, str | bytes]
FACTS: Mapping[str, Facts] = {
    "cd": Facts("iso9660"),
    "partition": Facts("ext4", "machine", None, "partition", None, None),
    "disk": Facts("mbr", "machine", None, "disk", None, None),
    "cut short": Facts("ext4", "machine", None, "partition", 48 * MIB, None),
    "kernel": Facts("bzimage", "kernel", "x86_64", None, None, "6.1.0-9-amd64"),
    "old kernel": Facts("bzimage", "kernel", None, None, None, "2.6.31-14-server"),
    "ramdisk": Facts("gzip", "ramdisk", None, None, None, None),
    "text": Facts("text", None, None, None, None, None),
}
KERNEL, BOTH, NOTHING = frozenset({"kernel"}), frozenset({"kernel", "ramdisk"}), frozenset[str]()
UEC = Rules(5.0, Sidecar(), {"default": KERNEL}, {"default": BOTH}, frozenset())
AWS = Rules(5.0, Sidecar(), {"default": KERNEL}, {"default": NOTHING}, frozenset({"default"}))
OPENSTACK = replace(AWS, needs={"default": NOTHING})
SETTLED = 100.0


def listing(
    files: Mapping[str, str | bytes], *, now: float = SETTLED, since: Mapping[str, float] | None = None
) -> Listing:
    """`files`: by path, a key of FACTS, the kind of something that is no file, or a sidecar's bytes."""
    entries: dict[str, Entry] = {}
    made = Listing(Path("/spool"), now, entries, {}, {}, {}, {})
    for number, (path, content) in enumerate(files.items()):
        kind: EntryKind = content if content in ("folder", "symlink", "fifo") else "file"  # type: ignore[assignment]
        stamp = FileStamp(1, number, MIB, 7)
        entries[path] = Entry(path.rsplit("/", 1)[-1], kind, MIB, stamp, (since or {}).get(path, 0.0))
        if isinstance(content, str) and kind == "file":
            made.facts[path] = FACTS[content]  # type: ignore[index]
        elif isinstance(content, bytes) and path.endswith(".sha256"):
            made.checksums[path] = read_checksums(path, content)  # type: ignore[index]
        elif isinstance(content, bytes):
            made.sidecars[path] = _sidecar(path, content)  # type: ignore[index]
    return made


def _sidecar(path: str, content: bytes) -> Sidecar | Rejected:
    try:
        return read_sidecar(path, content)
    except Rejected as error:
        return error


def decide(files: Files, rules: Rules = UEC) -> FolderSets:
    return assemble(listing(files), rules=rules)


def members(found: ImageSet) -> dict[str, str]:
    return {member.role: member.path for member in found.members}


def only(assembly: FolderSets) -> ImageSet:
    assert [s.name for s in assembly.ready] == [assembly.ready[0].name], assembly
    assert not assembly.waiting
    assert not assembly.refused
    return assembly.ready[0]


STEM = {"karmic.img": "partition", "karmic.vmlinuz": "kernel", "karmic.initrd": "ramdisk"}
FOLDER = {"karmic": "folder", "karmic/a": "partition", "karmic/b": "kernel", "karmic/c": "ramdisk"}
TRIO = {"karmic.img": "partition", "vmlinuz-2.6.31": "kernel", "initrd.img-2.6.31": "ramdisk"}
NAMED = {
    "karmic.toml": b'machine = "base.img"\nkernel = "vmlinuz-1"\nramdisk = "initrd-1"',
    "base.img": "partition",
    "vmlinuz-1": "kernel",
    "initrd-1": "ramdisk",
}


@pytest.mark.parametrize(
    ("files", "form"),
    [(STEM, "stem"), (FOLDER, "folder"), (TRIO, "loose"), (NAMED, "sidecar")],
    ids=["same stem", "folder", "loose trio", "sidecar"],
)
def test_a_set_in_each_of_its_forms_is_ready(files: Mapping[str, str | bytes], form: str) -> None:
    found = only(decide(files))
    assert (found.name, found.form) == ("karmic", form)
    assert list(members(found)) == ["kernel", "ramdisk", "machine"]
    assert not decide(files).unmatched


@pytest.mark.parametrize("files", [STEM, FOLDER, TRIO, NAMED], ids=["stem", "folder", "trio", "sidecar"])
@given(data=st.data())
def test_the_order_of_arrival_never_matters(files: Mapping[str, str | bytes], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(files.items()))))
    assert members(only(decide(shuffled))) == members(only(decide(files)))


@pytest.mark.parametrize("files", [STEM, FOLDER, TRIO, NAMED], ids=["stem", "folder", "trio", "sidecar"])
def test_a_set_with_a_file_missing_is_never_ready(files: Mapping[str, str | bytes]) -> None:
    for missing in files:
        left = {path: content for path, content in files.items() if path != missing}
        if not missing.endswith((".toml", "karmic")):
            assert not decide(left).ready, missing


def test_a_file_touched_a_moment_ago_is_waited_for_until_it_has_lain_still() -> None:
    assembly = assemble(listing(STEM, since={"karmic.initrd": 97.0}), rules=UEC)
    assert not assembly.ready
    assert assembly.waiting[0].ready_at == 102.0
    assert "karmic.initrd" in assembly.waiting[0].reason


def test_a_loose_kernel_is_waited_for_until_it_has_lain_still() -> None:
    assert not assemble(listing(TRIO, since={"vmlinuz-2.6.31": 97.0}), rules=UEC).ready


def test_a_sidecar_that_is_still_being_written_is_not_refused() -> None:
    half = listing({"karmic.toml": b'machine = "bas'}, since={"karmic.toml": 99.0})
    assert not assemble(half, rules=UEC).refused
    assert assemble(listing({"karmic.toml": b'machine = "bas'}), rules=UEC).refused


def test_content_says_the_role_before_the_name_does() -> None:
    assert members(only(decide({**STEM, "karmic.img": "kernel", "karmic.vmlinuz": "partition"})))[
        "machine"
    ] == ("karmic.vmlinuz")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"karmic.img": "partition", "karmic.vmlinuz": "kernel"}, "a ramdisk to go with karmic.vmlinuz"),
        ({"karmic.vmlinuz": "kernel"}, "a machine image (add karmic.img)"),
        ({"karmic.img": "kernel"}, "a machine image beside karmic.img, which is a kernel by its content"),
        ({"karmic.toml": b""}, "a machine image"),
        ({"karmic.toml": b'machine = "x.img"'}, "x.img (named in karmic.toml)"),
        ({"karmic": "folder"}, "a machine image in karmic/"),
        (
            {"karmic.iso": "cd"},
            'a recipe: say iso = "karmic.iso" and disk = "…" under [install] in karmic.toml',
        ),
        ({"karmic.toml": b"", "karmic.iso": "cd"}, 'a recipe: say iso = "karmic.iso"'),
        ({"karmic": "folder", "karmic/d.iso": "cd"}, 'a recipe: say iso = "d.iso" and disk = "…" under [i'),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_an_incomplete_set_says_what_it_waits_for(files: Mapping[str, str | bytes], reason: str) -> None:
    assembly = decide(files)
    assert not assembly.ready
    assert assembly.waiting[0].reason.startswith(reason)


@pytest.mark.parametrize(
    ("files", "what", "hint"),
    [
        ({**FOLDER, "karmic/d": "kernel"}, "two kernels in karmic/", "Name one in image.toml"),
        ({**STEM, "karmic.raw": "partition"}, "two machine images in karmic", "Name one in karmic.toml"),
        ({**STEM, "karmic.toml": b"", "karmic.json": b"{}"}, "karmic: it has two sidecars", "Remove one"),
        ({**STEM, "karmic": "folder"}, "karmic: two sets have this name", "Rename one"),
        ({**STEM, "karmic.img": "symlink"}, "karmic.img: it is a symbolic link", "Copy the image"),
        ({**STEM, "karmic.img": "fifo"}, "karmic.img: it is a named pipe", "Copy the image"),
        ({**STEM, "karmic.img": "folder"}, "karmic.img: it is a folder", "Copy the image"),
        ({**STEM, "karmic.toml": "symlink"}, "karmic.toml: it is a symbolic link", "Copy the image"),
        ({**STEM, "karmic.toml": "folder"}, "karmic.toml: it is a folder", "Copy the image"),
        ({**STEM, "karmic.sha256": "symlink"}, "karmic.sha256: it is a symbolic link", "Copy the image"),
        ({"karmic.toml": "symlink"}, "karmic.toml: it is a symbolic link", "Copy the image"),
        ({**FOLDER, "karmic/image.toml": "symlink"}, "karmic/image.toml: it is a symbolic link", "Copy"),
        ({**FOLDER, "karmic/image.json": "fifo"}, "karmic/image.json: it is a named pipe", "Copy"),
        ({**FOLDER, "karmic/x.sha256": "folder"}, "karmic/x.sha256: it is a folder", "Copy"),
        ({**STEM, "karmic.img": "cut short"}, "karmic.img: it cannot be the set's machine image", "Copy it"),
        ({**STEM, "karmic.vmlinuz": "text"}, "karmic.vmlinuz: it cannot be the set's kernel", ""),
        ({**STEM, "karmic.toml": b'clouds = ["moon"]'}, "karmic: there is no cloud named moon", "Change"),
        ({**STEM, "karmic.toml": b'kernal = "x"'}, "karmic.toml: it cannot be used", "Correct"),
        (
            {**STEM, "karmic.toml": b'[sha256]\n"karmik.img" = "' + b"0" * 64 + b'"'},
            "karmic: sha256 names karmik.img",
            "Correct the name in karmic.toml.",
        ),
        ({**FOLDER, "karmic/karmic.toml": b""}, "karmic/karmic.toml: it is not read", "Rename it."),
        (
            {**TRIO, "vmlinuz-2.6.32": "kernel", "initrd.img-2.6.32": "ramdisk"},
            "karmic: more than one kernel could be meant",
            "Name one in karmic.toml",
        ),
        (
            {"karmic.toml": b'machine = "a.img"', "a.img": "symlink"},
            "a.img: it is a symbolic link",
            "Copy the image",
        ),
    ],
    ids=lambda value: value.replace("/", "") if isinstance(value, str) else "",
)
def test_an_ambiguous_set_is_refused_in_a_sentence(
    files: Mapping[str, str | bytes], what: str, hint: str
) -> None:
    (refused,) = decide(files).refused
    assert refused.name == "karmic"
    assert refused.error.what == what
    assert refused.error.why
    assert refused.error.hint.startswith(hint)


def test_a_configuration_without_the_cloud_halts() -> None:
    (refused,) = decide(STEM, Rules(5, Sidecar(), {}, {}, frozenset())).refused
    assert isinstance(refused.error, Halted)
    assert "none at all" in refused.error.why


def test_a_cloud_that_wants_a_ramdisk_gets_one_also_with_a_kernel_that_is_there_already() -> None:
    rules = replace(UEC, needs={"default": BOTH})
    files = {"karmic.img": "partition", "karmic.toml": b'kernel = "eki-12345678"'}
    assert decide(files, rules).waiting[0].reason.startswith("a ramdisk to go with eki-12345678")
    assert decide(files, UEC).ready


def test_a_set_without_a_kernel_needs_no_ramdisk() -> None:
    rules = replace(UEC, needs={"default": BOTH})
    assert decide({"karmic.img": "partition", "karmic.toml": b'kernel = "none"'}, rules).ready


def test_a_truncated_disk_is_refused_even_while_its_kernel_is_missing() -> None:
    assert decide({"karmic.img": "cut short"}).refused


def test_a_sidecar_settles_which_of_two_kernels_is_meant() -> None:
    files = {**FOLDER, "karmic/d": "kernel", "karmic/image.toml": b'kernel = "d"'}
    assert members(only(decide(files)))["kernel"] == "karmic/d"
    assert [misfit.path for misfit in decide(files).unmatched] == ["karmic/b"]


@pytest.mark.parametrize(
    "text",
    [b'kernel = "eki-12345678"', b'kernel = "none"', b'kernel = "aki-0123456789abcdef0"'],
    ids=["id", "none", "long id"],
)
def test_a_lone_image_is_complete_when_its_sidecar_says_how_it_boots(text: bytes) -> None:
    assert list(members(only(decide({"karmic.img": "partition", "karmic.toml": text})))) == ["machine"]


def test_a_lone_image_is_complete_when_the_defaults_say_how_it_boots() -> None:
    defaults = read_defaults({"kernel": "eki-12345678", "ramdisk": "eri-12345678"})
    found = only(decide({"karmic.img": "partition"}, replace(UEC, defaults=defaults)))
    assert (found.kernel_id, found.ramdisk_id) == ("eki-12345678", "eri-12345678")


def test_a_lone_image_is_complete_where_the_cloud_needs_no_kernel() -> None:
    assert only(decide({"karmic.img": "partition"}, OPENSTACK)).name == "karmic"


@pytest.mark.parametrize(("rules", "ready"), [(UEC, 0), (AWS, 1)], ids=["uec", "aws"])
def test_a_whole_disk_boots_alone_only_where_the_cloud_has_hvm(rules: Rules, ready: int) -> None:
    files = {"karmic.img": "disk", "karmic.toml": b'virtualization = "hvm"'}
    assert len(decide(files, rules).ready) == ready


@pytest.mark.parametrize("sidecar", [b"", b'kernel = "none"'], ids=["no word of it", "no kernel"])
def test_a_whole_disk_with_nothing_beside_it_is_meant_to_boot_alone(sidecar: bytes) -> None:
    found = only(decide({"karmic.img": "disk", "karmic.toml": sidecar}, AWS))
    assert found.virtualization == "hvm"


@pytest.mark.parametrize(
    "files",
    [
        {"karmic.img": "disk", "karmic.vmlinuz": "kernel", "karmic.initrd": "ramdisk"},
        {"karmic.img": "disk", "karmic.toml": b'virtualization = "paravirtual"\nkernel = "eki-12345678"'},
        {"karmic.img": "disk", "karmic.toml": b'kernel = "eki-12345678"'},
        {"karmic.img": "partition", "karmic.toml": b'kernel = "none"'},
    ],
    ids=["kernel beside it", "said", "kernel's id", "partition"],
)
def test_an_image_that_has_a_kernel_or_is_no_disk_does_not_boot_alone(files: Files) -> None:
    assert only(decide(files, AWS)).virtualization != "hvm"


def test_a_partition_cannot_boot_alone() -> None:
    files = {"karmic.img": "partition", "karmic.toml": b'virtualization = "hvm"'}
    (refused,) = decide(files, AWS).refused
    assert "it is a partition without a boot sector" in str(refused.error)


def test_a_disk_that_cannot_boot_alone_is_reported_with_what_to_add() -> None:
    (waiting,) = decide({"karmic.img": "disk", "karmic.toml": b'virtualization = "hvm"'}).waiting
    assert waiting.reason == (
        "a kernel: no disk boots by itself on cloud default "
        '(add karmic.vmlinuz, or say kernel = "eki-…" or kernel = "none" in karmic.toml)'
    )


WINDOWS: Files = {
    "win.toml": b'platform = "windows"\nmachine = "d.img"\nkernel = "memdisk"\nramdisk = "boot.img"',
    "d.img": "disk",
    "memdisk": "old kernel",
    "boot.img": "ramdisk",
}


def test_windows_boots_through_memdisk_and_a_floppy() -> None:
    found = only(decide(WINDOWS))
    assert list(members(found)) == ["kernel", "ramdisk", "machine"]
    assert found.left_out == ()


def test_windows_needs_neither_where_a_disk_boots_by_itself() -> None:
    found = only(decide(WINDOWS, AWS))
    assert list(members(found)) == ["machine"]
    assert found.left_out == ("memdisk", "boot.img")
    assert found.virtualization == "hvm"
    assert {"memdisk", "boot.img"} <= set(found.files)


def test_a_windows_disk_alone_waits_for_a_floppy_where_nothing_else_boots_it() -> None:
    (waiting,) = decide({"win.img": "disk", "win.toml": b'platform = "windows"'}).waiting
    assert waiting.reason == (
        "a boot floppy: such a cloud boots Windows through memdisk and a floppy (copy ntldr, ntdetect.com "
        'and sym_hi.sys into win-bootfiles/, or add the floppy and say ramdisk = "…" in win.toml)'
    )


def test_a_sidecar_may_name_a_kernel_alone() -> None:
    files = {"karmic.toml": b'kernel = "vmlinuz-1"', "vmlinuz-1": "kernel"}
    assert members(only(decide(files))) == {"kernel": "vmlinuz-1"}


def test_one_kernel_serves_two_images_beside_it() -> None:
    assembly = decide({**TRIO, "lucid.img": "partition"})
    assert [members(found)["kernel"] for found in assembly.ready] == ["vmlinuz-2.6.31"] * 2


def test_a_kernel_that_two_sidecars_name_is_in_both_sets() -> None:
    text = b'kernel = "vmlinuz-1"\nramdisk = "none"'
    files = {"a.toml": text, "b.toml": text, "a.img": "partition", "b.img": "disk", "vmlinuz-1": "kernel"}
    assert [found.name for found in decide(files).ready] == ["a", "b"]


def test_a_finished_image_keeps_its_kernel_when_another_arrives() -> None:
    first = listing(TRIO)
    taken = {"karmic": [(m.path, m.stamp) for m in only(assemble(first, rules=UEC)).members]}
    more = {**TRIO, "vmlinuz-2.6.32": "kernel", "initrd.img-2.6.32": "ramdisk", "lucid.img": "partition"}
    assembly = assemble(listing(more), rules=UEC, taken=taken)
    assert {s.name: members(s)["kernel"] for s in assembly.ready} == {
        "karmic": "vmlinuz-2.6.31",
        "lucid": "vmlinuz-2.6.32",
    }


def test_nested_folders_are_refused() -> None:
    (misfit,) = decide({**FOLDER, "karmic/more": "folder"}).unmatched
    assert misfit.path == "karmic/more"
    assert misfit.reason.startswith("a folder in a folder")


def test_two_sidecars_are_reported_in_one_order() -> None:
    files = {"karmic.toml": b"", "karmic.json": b"{}"}
    backwards = dict(reversed(list(files.items())))
    assert str(decide(files).refused[0].error) == str(decide(backwards).refused[0].error)


def test_replacing_a_member_makes_another_stamp() -> None:
    before = only(decide(STEM)).stamp
    replaced = listing(STEM)
    old = replaced.entries["karmic.initrd"]
    replaced.entries["karmic.initrd"] = Entry(old.name, "file", old.size, FileStamp(1, 99, MIB, 7), 0.0)  # type: ignore[index]
    assert only(assemble(replaced, rules=UEC)).stamp != before


def test_a_set_refused_for_the_configuration_is_new_once_that_has_changed() -> None:
    files = {**STEM, "karmic.toml": b'clouds = ["moon"]'}
    rules = replace(UEC, needs={"default": NOTHING, "moon": NOTHING})
    assert decide(files).refused[0].stamp != only(decide(files, rules)).stamp


def test_checksums_come_from_the_sidecar_and_from_a_file() -> None:
    digest = b"ab" * 32
    files = {**STEM, "karmic.sha256": digest + b"  karmic.img\n"}
    assert only(decide(files)).checksums == {"karmic.img": digest.decode()}


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"notes.txt": "text"}, "not a disk image"),
        ({"vmlinuz-1": "kernel"}, "a kernel that no machine image has taken"),
        ({"notes": "symlink"}, "a symbolic link"),
        ({**STEM, "karmic.toml": b'machine = "karmic.img"', "karmic.qcow2": "disk"}, "does not use"),
        ({"orphan.sha256": b"ab" * 32 + b"  x.img\n"}, "checksums of no set"),
        ({"orphan.sha256": "folder"}, "checksums of no set"),
        ({**FOLDER, "karmic/packer.json": b"{}"}, "the sidecar is called image.toml"),
    ],
    ids=["text", "lone kernel", "link", "left over", "checksums", "folder for checksums", "other metadata"],
)
def test_a_file_in_no_set_has_a_reason(files: Mapping[str, str | bytes], word: str) -> None:
    (misfit,) = decide(files).unmatched
    assert word in misfit.reason


@pytest.mark.parametrize(
    ("sidecar", "kernel", "arch"),
    [(b'arch = "i386"', "kernel", "i386"), (b"", "kernel", "x86_64"), (b"", "old kernel", "i386")],
    ids=["as asked", "by the kernel", "by the name"],
)
def test_the_architecture_is_declared_then_read_then_named(sidecar: bytes, kernel: str, arch: str) -> None:
    files = {"k-i386.toml": sidecar, "k-i386.img": "partition", "k-i386.vmlinuz": kernel}
    assert only(decide({**files, "k-i386.initrd": "ramdisk"})).arch == arch


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("karmic.img", "karmic"),
        ("karmic.VMLINUZ", "karmic"),
        ("ubuntu-9.10.qcow2", "ubuntu-9.10"),
        ("ubuntu-9.10", "ubuntu-9.10"),
        (".img", ".img"),
        ("a.b.toml", "a.b"),
    ],
)
def test_a_stem_is_a_name_without_an_ending_that_images_have(name: str, stem: str) -> None:
    assert stem_of(name) == stem


CONTENTS = st.sampled_from([*FACTS, "symlink", "fifo", "folder", b"", b'kernel = "none"', b"\xff"])
NAMES = st.builds(
    lambda stem, ending: stem + ending,
    st.sampled_from(["a", "b", "vmlinuz-1", "initrd-1", "ä"]),
    st.sampled_from([".img", ".raw", ".vmlinuz", ".initrd", ".toml", ".json", "", ".txt"]),
)


def test_a_folder_named_like_checksums_is_mentioned() -> None:
    (misfit,) = decide({"karmic.sha256": "folder"}).unmatched
    assert misfit.path == "karmic.sha256"


@given(files=st.dictionaries(NAMES, CONTENTS, max_size=8))
def test_every_name_is_in_a_set_or_has_a_reason(files: dict[str, str | bytes]) -> None:
    odd = ("symlink", "fifo", "folder")
    files = {
        p: c for p, c in files.items() if c in odd or isinstance(c, bytes) == p.endswith((".toml", ".json"))
    }
    assembly = decide(files)
    named = {path for found in assembly.ready for path in members(found).values()}
    named |= {misfit.path for misfit in assembly.unmatched}
    unready = {one.name for one in assembly.waiting} | {one.name for one in assembly.refused}
    for path in files:
        assert path in named or stem_of(path) in unready or isinstance(files[path], bytes), (
            path,
            assembly,
        )


def folders(number: int) -> dict[str, str | bytes]:
    made: dict[str, str | bytes] = {}
    for name in (f"s{i}" for i in range(number)):
        made |= {name: "folder", f"{name}/d.img": "partition", f"{name}/k": "kernel", f"{name}/r": "ramdisk"}
    return made


def sidecars(number: int) -> dict[str, str | bytes]:
    made: dict[str, str | bytes] = {}
    for i in range(number):
        text = f'machine = "m{i}"\nkernel = "k{i}"\nramdisk = "r{i}"\n'.encode()
        made |= {f"s{i}.toml": text, f"m{i}": "partition", f"k{i}": "kernel", f"r{i}": "ramdisk"}
    return made


def loose(number: int) -> dict[str, str | bytes]:
    return {f"s{i}.img": "partition" for i in range(number)} | {"vmlinuz-1": "kernel", "initrd-1": "ramdisk"}


@pytest.mark.parametrize("files", [folders, sidecars, loose])
def test_four_times_the_sets_take_four_times_the_work(files: Callable[[int], dict[str, str | bytes]]) -> None:
    assert _steps(files(400)) < 5 * _steps(files(100))


def _steps(files: Mapping[str, str | bytes]) -> int:
    """Count the lines of ours that run for one assembly, each turn of a comprehension included."""
    made, steps = listing(files), 0

    def count(frame: FrameType, event: str, _: object) -> Callable[..., object]:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return count

    sys.settrace(count)
    try:
        assemble(made, rules=UEC)
    finally:
        sys.settrace(None)
    return steps


# --- kernel and ramdisk from the image --------------------------------------------------------------------


def test_an_image_alone_is_asked_for_its_own_kernel_where_the_cloud_needs_one() -> None:
    found = only(decide({"karmic.img": "partition"}))
    assert found.from_image
    assert found.from_image.roles == {"kernel", "ramdisk"}
    assert found.from_image.otherwise.startswith("a kernel: a paravirtual image boots only with one (add")


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        (b'kernel = "from-image"', {"kernel", "ramdisk"}),
        (b'kernel = "from-image"\nramdisk = "none"', {"kernel"}),
        (b'kernel = "from-image"\nramdisk = "from-image"', {"kernel", "ramdisk"}),
        (b'kernel = "eki-12345678"\nramdisk = "from-image"', {"ramdisk"}),
    ],
)
@pytest.mark.parametrize("rules", [UEC, AWS], ids=["uec", "aws"])
def test_a_sidecar_can_demand_the_kernel_of_the_image(rules: Rules, text: bytes, roles: set[str]) -> None:
    found = only(decide({"karmic.img": "disk", "karmic.toml": text, **PAIR}, rules))
    assert list(members(found)) == ["machine"], "not the pair beside it"
    assert found.from_image
    assert (found.from_image.roles, found.from_image.otherwise) == (roles, "")


PAIR: Files = {"vmlinuz-2.6.31": "kernel", "initrd.img-2.6.31": "ramdisk"}


@pytest.mark.parametrize(
    "beside",
    [
        {"vmlinuz-2.6.31": "kernel"},
        {"initrd.img-2.6.31": "ramdisk"},
        {"karmic.initrd": "ramdisk"},
        {"karmic.toml": b'ramdisk = "eri-12345678"'},
        {"karmic.toml": b'virtualization = "hvm"'},
        {"karmic.toml": b'platform = "windows"'},
        {"karmic.toml": b'convert = "keep"'},
    ],
    ids=[
        "a kernel",
        "a ramdisk",
        "its ramdisk",
        "a ramdisk's id",
        "hvm",
        "windows",
        "keep",
    ],
)
def test_an_image_is_not_asked_for_its_kernel_if_another_is_expected(beside: Files) -> None:
    decided = decide({"karmic.img": "disk", **beside})
    assert [one.name for one in decided.waiting] == ["karmic"]
    assert decided.waiting[0].reason.startswith(("a kernel", "a boot floppy"))


def test_a_change_of_the_rules_makes_an_image_that_was_asked_new() -> None:
    files: Files = {"karmic.img": "disk"}
    assert only(decide(files)).stamp != only(decide(files, AWS)).stamp


def test_a_root_partition_is_wanted_for_a_paravirtual_cloud_only() -> None:
    files: Files = {"karmic.img": "disk", "karmic.toml": b'layout = "partition"', **PAIR}
    assert list(members(only(decide(files, AWS)))) == ["kernel", "ramdisk", "machine"]
