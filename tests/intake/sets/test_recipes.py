"""Recipes as sets before anything is installed: their files, their bases, and the disk they make."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.scanned_folder import ALONE, MBR, NOW, decided, lay
from tests.support.spool_files import ALICE, BOB
from uecwatchd.config.documents import Malformed
from uecwatchd.errors import Halted, Rejected
from uecwatchd.images.detect import detect
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.installed import judge_installed
from uecwatchd.intake.sets.records import FolderSets, FolderUsers, ImageSet, Rules
from uecwatchd.intake.sidecar import parse_sidecar, read_defaults
from uecwatchd.intake.spool import scan
from uecwatchd.intake.spool.scan import Entry
from uecwatchd.types import FileStamp

EXAMPLES = sorted((Path(__file__).parents[3] / "etc" / "examples").glob("install-*.toml"))
RECIPE = """
description = "installed here"

[install]
iso = "netinst.iso"
disk = "1G"
answers = "preseed.cfg"
answers_as = "disk"
"""
LAYER = '[install]\nbase = "{base}"\nnetwork = "user"\npackages = ["mediawiki"]\n'
ISO = b"\0" * 32769 + b"CD001" + b"\0" * 8192


def lay_recipe(folder: Path, **more: bytes | str) -> None:
    lay(folder, {"web.toml": RECIPE, "netinst.iso": ISO, "preseed.cfg": "d-i\n", **more})


def only_set(assembly: FolderSets) -> ImageSet:
    assert assembly.waiting == assembly.refused == ()
    (found,) = assembly.ready
    return found


def reason(folder: Path, name: str = "web") -> str:
    (waiting,) = [one for one in decided(folder).waiting if one.name == name]
    return waiting.reason


def refusal(folder: Path, name: str = "web") -> str:
    (refused,) = [one for one in decided(folder).refused if one.name == name]
    return str(refused.error)


def test_a_sidecar_with_a_recipe_is_a_set_of_the_files_it_names(tmp_path: Path) -> None:
    lay_recipe(tmp_path)
    found = only_set(decided(tmp_path))
    assert (found.name, found.form, found.members) == ("web", "recipe", ())
    assert set(found.files) == {"web.toml", "netinst.iso", "preseed.cfg"}
    assert found.recipe
    assert {key: path for key, (path, _) in found.recipe.files.items()} == {
        "iso": "netinst.iso",
        "answers": "preseed.cfg",
    }
    assert [what for what, _ in found.described] == ["ISO image netinst.iso", "answers preseed.cfg"]
    assert found.is_made_first


def test_no_file_of_a_recipe_is_a_set_or_left_over(tmp_path: Path) -> None:
    lay_recipe(tmp_path)
    assert decided(tmp_path).unmatched == ()
    lay(tmp_path, {"db.toml": RECIPE})
    assert [found.name for found in decided(tmp_path).ready] == ["db", "web"], "both use one ISO image"


@pytest.mark.parametrize("missing", ["netinst.iso", "preseed.cfg"])
def test_a_recipe_waits_for_each_file_it_names(tmp_path: Path, missing: str) -> None:
    lay_recipe(tmp_path)
    (tmp_path / missing).unlink()
    assert reason(tmp_path) == f"{missing} (named in web.toml)"


def test_a_change_of_any_file_is_a_change_of_the_set(tmp_path: Path) -> None:
    lay_recipe(tmp_path)
    stamps = [only_set(decided(tmp_path)).stamp]
    for name in ("web.toml", "netinst.iso", "preseed.cfg"):
        with (tmp_path / name).open("a") as file:
            file.write("\n")
        stamps.append(only_set(decided(tmp_path)).stamp)
    assert len(set(stamps)) == 4


def test_a_recipe_in_a_folder_has_its_files_there(tmp_path: Path) -> None:
    files = {"image.toml": RECIPE, "netinst.iso": ISO, "preseed.cfg": "d-i\n"}
    lay(tmp_path, {f"web/{name}": content for name, content in files.items()})
    found = only_set(decided(tmp_path))
    assert found.recipe
    assert found.recipe.files["iso"][0] == "web/netinst.iso"


def test_an_image_beside_a_recipe_with_its_name_is_refused(tmp_path: Path) -> None:
    lay_recipe(tmp_path, **{"web.img": MBR})
    assert refusal(tmp_path) == (
        "web: there is a recipe for it, and web.img: web.toml installs the system, and web.img is a machine"
        " image already. Move web.img away, or name it in the recipe; or take [install] out."
    )


def test_sums_are_of_the_files_of_the_recipe(tmp_path: Path) -> None:
    lay_recipe(tmp_path, SHA256SUMS=f"{'a' * 64}  netinst.iso\n{'b' * 64}  other.iso\n")
    found = only_set(decided(tmp_path))
    assert found.checksums == {"netinst.iso": "a" * 64}
    (tmp_path / "web.toml").write_text(f'{RECIPE}\n[sha256]\n"disk.img" = "{"a" * 64}"\n')
    assert "web: sha256 names disk.img: that is not a file of this set" in refusal(tmp_path)


def test_a_recipe_without_an_image_holds_no_set_with_a_similar_name(tmp_path: Path) -> None:
    lay(tmp_path, {"jaunty.img": MBR, "jaunty-2.toml": LAYER.format(base="jaunty")})
    assert [found.name for found in decided(tmp_path).ready] == ["jaunty"]


# --- bases ------------------------------------------------------------------------------------------------


def assembled(folder: Path, **done: str) -> FolderSets:
    listing, taken = scan.scan(folder, now=NOW, seen=0.0), dict.fromkeys(done, ())
    return assemble(listing, rules=ALONE, taken=taken, done=done)


def test_a_base_is_a_file_beside_the_recipe_and_still_a_set_of_its_own(tmp_path: Path) -> None:
    lay(tmp_path, {"jaunty.img": MBR, "wiki.toml": LAYER.format(base="jaunty.img")})
    assembly = decided(tmp_path)
    assert [found.name for found in assembly.ready] == ["jaunty", "wiki"]
    wiki = assembly.ready[1]
    assert wiki.recipe
    assert (wiki.recipe.base_set, wiki.recipe.files["base"][0]) == ("", "jaunty.img")


def test_a_base_that_is_a_set_is_waited_for_until_it_is_done(tmp_path: Path) -> None:
    lay(tmp_path, {"jaunty.img": MBR, "wiki.toml": LAYER.format(base="jaunty")})
    assert reason(tmp_path, "wiki") == "the set jaunty to be done, its base"
    (wiki,) = [one for one in assembled(tmp_path, jaunty="s1").ready if one.name == "wiki"]
    assert wiki.recipe
    assert (wiki.recipe.base_set, wiki.described[-1][0]) == ("jaunty", "base set jaunty")


def test_a_base_that_nobody_has_is_waited_for(tmp_path: Path) -> None:
    lay(tmp_path, {"wiki.toml": LAYER.format(base="jaunty")})
    assert reason(tmp_path, "wiki") == "jaunty (the base in wiki.toml): there is no such file or set"


def test_a_layer_is_a_new_set_when_its_base_is_another_image(tmp_path: Path) -> None:
    lay(tmp_path, {"wiki.toml": LAYER.format(base="jaunty")})
    first, second = (only_set(assembled(tmp_path, jaunty=stamp)).stamp for stamp in ("s1", "s2"))
    assert first != second


def test_a_finished_layer_stays_finished_while_its_base_is_made_again(tmp_path: Path) -> None:
    lay(tmp_path, {"wiki.toml": LAYER.format(base="jaunty")})
    stamp = only_set(assembled(tmp_path, jaunty="s1")).stamp
    assert only_set(assembled(tmp_path, wiki=stamp)).stamp == stamp
    (tmp_path / "wiki.toml").write_text(LAYER.format(base="jaunty") + "# another\n")
    (waiting,) = assembled(tmp_path, wiki=stamp).waiting
    assert waiting.reason == "jaunty (the base in wiki.toml): there is no such file or set"


def test_bases_in_a_circle_are_refused_with_the_circle(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("e", "e")):
        lay(tmp_path, {f"{name}.toml": LAYER.format(base=base)})
    assert "a: its base can never be done: the recipes are based on each other: a on b on c on a" in refusal(
        tmp_path, "a"
    )
    assert "based on each other: a on b on c on a" in refusal(tmp_path, "d")
    assert "based on each other: e on e" in refusal(tmp_path, "e")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
def test_a_member_installs_from_an_iso_image_of_root_and_of_no_other_member(tmp_path: Path) -> None:
    lay_recipe(tmp_path)
    os.chown(tmp_path / "web.toml", ALICE, ALICE)
    os.chown(tmp_path / "preseed.cfg", ALICE, ALICE)
    rules = replace(ALONE, users=FolderUsers(frozenset({0})))
    (found,) = assemble(scan.scan(tmp_path, now=NOW, seen=0.0), rules=rules).ready
    assert (found.name, found.owner) == ("web", ALICE)
    os.chown(tmp_path / "netinst.iso", BOB, BOB)
    waits = assemble(scan.scan(tmp_path, now=NOW, seen=0.0), rules=rules).waiting
    (waiting,) = [one for one in waits if one.name == "web"]
    assert waiting.reason.startswith("netinst.iso (named in web.toml); netinst.iso belongs to ")


# --- the sidecar ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[install]\nisso = "a.iso"\n', "unknown key install.isso (did you mean iso?)"),
        ("[install]\n", "install needs iso, the image of an installation CD, or base, another image"),
        ('machine = "a.img"\n' + RECIPE, "machine names a file, and install makes the image"),
        ('convert = "keep"\n' + RECIPE, "install makes a disk in a qcow2"),
    ],
)
def test_a_mistake_in_a_recipe_is_a_sentence(text: str, words: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_sidecar(text.encode(), is_json=False)
    assert words in str(refused.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_example_is_a_sidecar_with_a_recipe(path: Path) -> None:
    assert parse_sidecar(path.read_bytes(), is_json=False).install


def test_defaults_have_no_recipe() -> None:
    with pytest.raises(Halted, match="install is for sidecars: a recipe is about one image"):
        read_defaults({"install": {"iso": "a.iso", "disk": "1G"}})


# --- the disk ---------------------------------------------------------------------------------------------


def judged(folder: Path, content: bytes, rules: Rules = ALONE) -> ImageSet:
    found = only_set(assemble(scan.scan(folder, now=NOW, seen=0.0), rules=rules))
    assert found.recipe
    stamp = FileStamp(1, 2, len(content), 3)
    disk = Entry(f"{'0' * 32}/disk.qcow2", "file", len(content), stamp, 0.0)
    return judge_installed(found, found.recipe, disk, detect(content, content, size=len(content)))


def test_the_installed_disk_is_the_image_of_the_set(tmp_path: Path) -> None:
    lay_recipe(tmp_path)
    before = only_set(decided(tmp_path))
    found = judged(tmp_path, MBR)
    (member,) = found.members
    assert (member.role, member.path) == ("machine", f"{'0' * 32}/disk.qcow2")
    assert str(member.origin) == "disk installed from netinst.iso"
    assert found.sidecar.description == "installed here"
    assert (found.stamp, found.files, found.owner) == (before.stamp, before.files, before.owner)
    assert not found.is_made_first


def test_an_installed_disk_that_is_no_disk_is_refused(tmp_path: Path) -> None:
    lay_recipe(tmp_path)
    with pytest.raises(Rejected) as refused:
        judged(tmp_path, b"text\n")
    assert refused.value.what == "disk installed from netinst.iso: it cannot be the set's machine image"
    assert "0000" not in str(refused.value)


# --- Windows ----------------------------------------------------------------------------------------------

MEMDISK = Path("/usr/lib/syslinux/memdisk")  # of the package syslinux-common
UEC = Rules(
    5.0,
    ALONE.defaults,
    {"default": frozenset({"kernel"})},
    {"default": frozenset({"kernel", "ramdisk"})},
    frozenset(),
)
WINDOWS = 'platform = "windows"\n[install]\niso = "win.iso"\ndisk = "20G"\n'


def test_boot_files_go_with_a_windows_that_is_installed(tmp_path: Path) -> None:
    lay(tmp_path, {"win.toml": WINDOWS, "win.iso": ISO})
    (waiting,) = assemble(scan.scan(tmp_path, now=NOW, seen=0.0), rules=UEC).waiting
    assert "a boot floppy: such a cloud boots Windows through memdisk and a floppy" in waiting.reason
    lay(tmp_path, {f"win-bootfiles/{name}": name for name in ("ntldr", "ntdetect.com")})
    found = judged(tmp_path, MBR, UEC)
    assert found.windows_boot
    assert found.windows_boot.memdisk
    assert found.windows_boot.floppy
    assert found.windows_boot.floppy.folder == "win-bootfiles"
    assert {"win-bootfiles/ntldr", "win-bootfiles/ntdetect.com"} <= set(found.files)


def test_a_floppy_and_memdisk_beside_a_recipe_are_members_of_their_own(tmp_path: Path) -> None:
    named = 'kernel = "memdisk"\nramdisk = "win-boot.img"\n' + WINDOWS
    lay(tmp_path, {"win.toml": named, "win.iso": ISO, "memdisk": MEMDISK.read_bytes()})
    floppy = ["mkfs.fat", "-C", tmp_path / "win-boot.img", "1440"]
    subprocess.run(floppy, check=True, capture_output=True)
    found = judged(tmp_path, MBR, UEC)
    assert [(member.role, member.path, bool(member.origin)) for member in found.members] == [
        ("kernel", "memdisk", False),
        ("ramdisk", "win-boot.img", False),
        ("machine", f"{'0' * 32}/disk.qcow2", True),
    ]
    (tmp_path / "win-boot.img").unlink()
    (waiting,) = assemble(scan.scan(tmp_path, now=NOW, seen=0.0), rules=UEC).waiting
    assert waiting.reason == "win-boot.img (named in win.toml)"


def test_a_cloud_that_boots_windows_alone_needs_the_recipe_alone(tmp_path: Path) -> None:
    lay(tmp_path, {"win.toml": WINDOWS, "win.iso": ISO})
    assert [member.role for member in judged(tmp_path, MBR).members] == ["machine"]
