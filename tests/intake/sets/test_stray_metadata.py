"""No image goes up past metadata that was meant for it: real files, on a cloud that boots a disk alone."""

import os
import subprocess
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.scanned_folder import ALONE, MBR, NOW, again, decided, lay, row_of
from uecwatchd.errors import Rejected
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderSets, FolderUsers, ImageSet
from uecwatchd.intake.sidecar import ForeignDocument
from uecwatchd.intake.spool import contents, scan

PRIVATE = "public = false\n"
DEBIAN = '{"apiVersion": "v1", "kind": "List", "items": []}'
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def only(folder: Path) -> ImageSet:
    assembly = decided(folder)
    assert not assembly.waiting, assembly
    assert not assembly.refused, assembly
    (found,) = assembly.ready
    return found


def held(folder: Path, name: str = "karmic") -> str:
    """Return the sentence that holds the set. `status` must show it too."""
    assembly = decided(folder)
    assert not assembly.ready, assembly
    reasons = {one.name: str(one.error) for one in assembly.refused}
    reasons |= {one.name: one.reason for one in assembly.waiting}
    assert row_of(folder, name).state in ("rejected", "waiting")
    return reasons[name]


@pytest.mark.parametrize(
    "files",
    [
        {"KARMIC.IMG": MBR, "KARMIC.TOML": PRIVATE},
        {"Karmic.img": MBR, "karmic.toml": PRIVATE},
        {"karmic.img": MBR, "Karmic.Toml": PRIVATE},
        {"karmic.img": MBR, "karmic.JSON": '{"public": false}'},
        {f"{NFD}.img": MBR, f"{NFC}.toml": PRIVATE},
        {f"{NFC}.img": MBR, f"{NFD.upper()}.TOML": PRIVATE},
        {"STRASSE.img": MBR, "straße.toml": PRIVATE},
        {"one/disk.img": MBR, "one/Image.toml": PRIVATE},
        {"one/disk.img": MBR, "one/IMAGE.JSON": '{"public": false}'},
        {"karmic.img": MBR, "karmic.toml": b"\xef\xbb\xbf" + PRIVATE.encode()},
        {"karmic.img": MBR, "karmic.toml": PRIVATE.replace("\n", "\r\n")},
        {f"{NFD}.img": MBR, "karmic.toml": f'{PRIVATE}machine = "{NFC}.img"'},
        {f"{NFC}.img": MBR, "karmic.toml": f'{PRIVATE}machine = "{NFD}.img"'},
        {f"one/{NFD}.img": MBR, "one/x.img": MBR, "one/image.toml": f'{PRIVATE}machine = "{NFC}.img"'},
    ],
    ids=lambda files: "+".join(files).encode("ascii", "backslashreplace").decode().replace("/", "-"),
)
def test_a_sidecar_counts_however_its_name_is_written(tmp_path: Path, files: Mapping[str, str]) -> None:
    lay(tmp_path, files)
    found = only(tmp_path)
    assert "public" in found.sidecar.given
    assert [member.role for member in found.members] == ["machine"]


def test_the_exact_spelling_wins_over_another_one(tmp_path: Path) -> None:
    lay(tmp_path, {f"{NFC}.img": MBR, f"{NFD}.img": MBR, "karmic.toml": f'machine = "{NFD}.img"'})
    assert {f.name: f.members[0].path for f in decided(tmp_path).ready}["karmic"] == f"{NFD}.img"


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"karmic.img": MBR, "Karmic.img": MBR}, ("karmic.img", "Karmic.img")),
        ({"karmic.img": MBR, "karmic.toml": "", "KARMIC.TOML": ""}, ("karmic.toml", "KARMIC.TOML")),
        ({"karmic.img": MBR, "karmic.toml": "", "karmic.JSON": "{}"}, ("karmic.toml", "karmic.JSON")),
        ({"karmic.img": MBR, "Karmic/disk.img": MBR}, ("karmic.img", "Karmic/")),
        (
            {"karmic/d.img": MBR, "karmic/image.toml": "", "karmic/Image.toml": ""},
            ("image.toml", "Image.toml"),
        ),
    ],
    ids=["images", "sidecars", "toml and json", "folder", "in a folder"],
)
def test_two_that_differ_in_case_alone_are_refused_by_both_names(
    tmp_path: Path, files: Mapping[str, str], names: tuple[str, str]
) -> None:
    lay(tmp_path, files)
    assembly = decided(tmp_path)
    assert not assembly.ready
    (refused,) = assembly.refused
    assert all(name in str(refused.error) for name in names)


def test_a_named_file_that_differs_in_case_is_not_taken_and_both_names_are_reported(tmp_path: Path) -> None:
    lay(tmp_path, {"Karmic.img": MBR, "mine.toml": 'machine = "karmic.img"'})
    assert "Karmic.img is there" in held_by(tmp_path, "mine")
    assert "karmic.img (named in mine.toml" in held_by(tmp_path, "mine")


def held_by(folder: Path, name: str) -> str:
    return next(one.reason for one in decided(folder).waiting if one.name == name)


@pytest.mark.parametrize(
    "name",
    [
        *("karmic.img.toml", "karmic.toml.txt", "karmic.tml", "karmic.tolm", "karmic.jsn", "karmic .toml"),
        *("karmic.yaml", "karmic.yml", "karmic.ini", "karmic.YAML", "karmic.img.json", "Karmic.IMG.toml"),
        *(
            ".karmic.toml",
            "karmic.toml~",
            "karmic.toml.bak",
            "karmic.toml.old",
            ".karmic.toml.swp",
            "#karmic.toml#",
        ),
        *(
            "karmic.toml.part",
            "karmic.toml.crdownload",
            ".karmic.toml.Xy12aB",
            "karmic.toml.tmp",
            "karmic.toml.1",
        ),
        *(
            "karmic (1).toml",
            "Copy of karmic.toml",
            "karmic - Copy.toml",
            "karmic.toml.dpkg-old",
            "karmic.toml (2)",
        ),
        *("karmic.sync-conflict-20261128-101010-ABCDEFG.toml", "karmic.txt", "karmic.conf", "karmic"),
        *(
            "Karmik.toml",
            "karmci.toml",
            "karmicc.toml",
            "karmi.toml",
            "karmic-sidecar.toml",
            "karmic_meta.json",
        ),
        *("image.toml", "sidecar.json", "metadata.toml"),
    ],
)
def test_metadata_that_nearly_bears_its_name_holds_a_set(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: '{"public": false}' if name.endswith("json") else PRIVATE})
    sentence = held(tmp_path)
    assert name in sentence
    assert "karmic.toml" in sentence or "karmic.json" in sentence
    (tmp_path / name).unlink()
    assert only(tmp_path).name == "karmic"


@pytest.mark.parametrize(
    ("image", "sidecar", "text"),
    [
        ("karmic-server-amd64.img", "karmic.toml", ""),
        ("web-01.img", "web01.toml", ""),
        ("web-01.img", "web_01.toml", ""),
        ("karmic.img", "mine.toml", 'machine = "karmik.img"'),
        ("karmic.img", "mine.toml", 'machine = "karmic-server.img"'),
        ("karmic/disk.img", "karmik.toml", ""),
    ],
)
def test_a_sidecar_without_an_image_holds_the_set_that_it_nearly_names(
    tmp_path: Path, image: str, sidecar: str, text: str
) -> None:
    lay(tmp_path, {image: MBR, sidecar: f"{PRIVATE}{text}"})
    assembly = decided(tmp_path)
    assert not assembly.ready
    assert any(sidecar in one.reason for one in assembly.waiting if one.name != sidecar.removesuffix(".toml"))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "disk.toml",
            "one.toml",
            "packer.json",
            "image.yaml",
            "sidecar.toml",
            "image.toml.txt",
            ".image.toml",
        ),
        *("image.toml~", "image.tml", "disk.img.toml", "notes.txt", "image", "image.json.bak", "Disk.JSON"),
    ],
)
def test_any_metadata_in_a_set_s_folder_holds_it(tmp_path: Path, name: str) -> None:
    text = '{"public": false}' if "json" in name.lower() else PRIVATE
    lay(tmp_path, {"one/disk.img": MBR, f"one/{name}": text})
    sentence = held(tmp_path, "one")
    assert f"one/{name}" in sentence
    assert "image.toml" in sentence or "image.json" in sentence


@pytest.mark.parametrize("name", ["disk.toml", "other.json", "image.yaml", "disk.txt"])
def test_a_second_sidecar_in_a_folder_is_refused_beside_the_right_one(tmp_path: Path, name: str) -> None:
    text = '{"public": false}' if name.endswith("json") else PRIVATE
    lay(tmp_path, {"one/disk.img": MBR, "one/image.toml": "", f"one/{name}": text})
    sentence = held(tmp_path, "one")
    assert f"one/{name}: it is not read" in sentence
    assert "Write what it says into one/image.toml" in sentence


@pytest.mark.parametrize(
    ("set_aside", "sidecar"),
    [
        ("karmic.toml~", "karmic.toml"),
        (".karmic.toml.swp", "karmic.toml"),
        ("karmic.toml.bak", "karmic.TOML"),
        ("._karmic.toml", "karmic.toml"),
        ("karmic.yaml", "karmic.toml"),
        ("one/image.toml~", "one/image.toml"),
    ],
)
def test_backup_files_of_editors_hold_nothing(tmp_path: Path, set_aside: str, sidecar: str) -> None:
    image = "one/d.img" if sidecar.startswith("one/") else "karmic.img"
    lay(tmp_path, {image: MBR, sidecar: PRIVATE, set_aside: "x: 1\n"})
    assert "public" in only(tmp_path).sidecar.given


@pytest.mark.parametrize(
    "name",
    [
        *(
            "web-2.toml",
            "web2.toml",
            "lucid.toml",
            "b.toml",
            "readme.txt",
            "README",
            "package.json",
            "._karmic.toml",
        ),
        *("karmic.manifest", "karmic.log", "karmic.emi", "karmic.uec.json"),
    ],
)
def test_metadata_with_another_name_holds_nothing(tmp_path: Path, name: str) -> None:
    image = "web-1.img" if name.startswith("web-") else "web1.img" if name.startswith("web") else "karmic.img"
    image = "a.img" if name == "b.toml" else image
    text = (
        DEBIAN
        if name.endswith(".json")
        else ""
        if name.endswith(".toml")
        else "some prose\nmore of it\nname: x\n"
    )
    lay(tmp_path, {image: MBR, name: text})
    assert [found.members[0].path for found in decided(tmp_path).ready] == [image]


def test_metadata_of_operating_systems_holds_nothing(tmp_path: Path) -> None:
    litter = ("desktop.ini", "Desktop.ini", ".DS_Store", "Thumbs.db", "._image.toml", ".hidden.yaml")
    lay(tmp_path, {"one/disk.img": MBR, **{f"one/{name}": "x" for name in litter}})
    assert only(tmp_path).name == "one"


def test_a_sidecar_that_the_administrator_has_passed_over_holds_nothing(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.img": MBR, "karmic.json": DEBIAN})
    listing = scan.scan(tmp_path, now=100.0, seen=0.0, ignore=("*.json",))
    assert [found.name for found in assemble(listing, rules=ALONE).ready] == ["karmic"]


@pytest.mark.parametrize("name", ["karmic.yaml", "one/user-data.yml", "one/meta.ini", "karmic.meta"])
def test_what_gives_no_key_of_a_sidecar_and_is_none_by_its_name_is_reported(
    tmp_path: Path, name: str
) -> None:
    image = "one/disk.img" if "/" in name else "karmic.img"
    lay(tmp_path, {image: MBR, name: "builds: 1\n# public: false\n"})
    assert [sentence.partition(" is not read")[0] for sentence in only(tmp_path).unread] == [name]
    lay(tmp_path, {name: "uec:\n  public: false\n"})
    assert "it is not read" in held(tmp_path, image.removesuffix("/disk.img").removesuffix(".img"))
    lay(tmp_path, {name: "public: false\n".encode("utf-16")})
    assert not decided(tmp_path).ready


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one/network-config.yaml", "version: 2\nethernets: {}\n"),
        ("one/os-release", 'NAME="Ubuntu"\nVERSION="9.10"\nID=ubuntu\n'),
        ("one/build.env", "NAME=x\nARCH=amd64\n"),
        ("one/x.mf", f"SHA256(other.img)= {'0' * 64}\n"),
        ("karmic.txt", "Name: karmic\nVersion: 9.10\nBuilt: today\n"),
        ("karmic.manifest.xml", "<manifest/>\n"),
        ("karmic-notes", "some prose about it\n"),
        ("karmik.txt", "some prose about it\n"),
    ],
)
def test_metadata_of_other_programs_beside_an_image_holds_nothing(
    tmp_path: Path, name: str, text: str
) -> None:
    lay(tmp_path, {"one/disk.img" if "/" in name else "karmic.img": MBR, name: text})
    assert only(tmp_path)


@pytest.mark.parametrize(
    "text", ["name = 'web'\n", "Public: no\nBuilt: today\n", "name: x\nkernel: none\nby: me\n"]
)
def test_a_text_of_keys_of_a_sidecar_holds_the_set_whose_name_it_bears(tmp_path: Path, text: str) -> None:
    lay(tmp_path, {"karmic.img": MBR, "karmic.conf": text})
    assert "karmic.conf: it is not read" in held(tmp_path)


@pytest.mark.parametrize("name", ["karmic.img.json", "one/packer.json", "one/packages.JSON"])
def test_the_other_way_of_the_hint_corrects_it_too(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {"one/disk.img" if "/" in name else "karmic.img": MBR, name: DEBIAN})
    (refused,) = decided(tmp_path).refused
    to = "one/image.toml" if "/" in name else "karmic.toml"
    assert refused.error.hint == f"Move it away; or write {to}, and it is left alone."
    lay(tmp_path, {to: PRIVATE})
    assert name in " ".join(only(tmp_path).unread)


def test_the_command_of_the_hint_corrects_it(tmp_path: Path) -> None:
    for folder, image, name in (
        ("", "karmic.img", "karmic.img.toml"),
        ("", "-x.img", "-x.img.toml"),
        ("a b/", "disk.img", "disk.toml"),
    ):
        lay(tmp_path, {folder + image: MBR, folder + name: PRIVATE})
    commands = [one.error.hint.partition("Try: ")[2] for one in decided(tmp_path).refused]
    for command in commands:
        run(tmp_path, command)
    assert {f.name: f.sidecar.given for f in decided(tmp_path).ready} == dict.fromkeys(
        ("karmic", "-x", "a b"), frozenset({"public"})
    )


def run(folder: Path, command: str) -> None:
    subprocess.run(["sh", "-c", command], cwd=folder, check=True)


@pytest.mark.parametrize(
    "text", [DEBIAN, "[1, 2]", '"x"', '{"kernal": "x"}', '{"builds": [], "last_run_uuid": ""}']
)
@pytest.mark.parametrize("name", ["karmic.json", "KARMIC.JSON", "karmic.img.json"])
def test_another_program_s_json_holds_the_set_and_says_that_it_is_no_sidecar(
    tmp_path: Path, name: str, text: str
) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: text})
    sentence = held(tmp_path)
    assert name in sentence
    assert "did you mean" not in sentence
    assert "ove it away" in sentence
    lay(tmp_path, {"karmic.toml": PRIVATE})
    assert "public" in only(tmp_path).sidecar.given


def test_another_program_s_json_says_which_keys_it_has(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.img": MBR, "karmic.json": DEBIAN})
    (refused,) = decided(tmp_path).refused
    assert isinstance(refused.error, ForeignDocument)
    assert isinstance(refused.error, Rejected)
    assert '"apiVersion"; "kind"; "items"' in refused.error.why
    assert "write karmic.toml" in refused.error.hint


def test_another_program_s_json_alone_is_no_set(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.json": DEBIAN})
    assembly = decided(tmp_path)
    assert not assembly.refused
    assert "not a sidecar" in row_of(tmp_path, "karmic.json").detail


def test_json_with_a_key_of_ours_among_others_is_a_sidecar_with_a_mistake(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.img": MBR, "karmic.json": '{"public": false, "kernal": "x"}'})
    assert "did you mean kernel?" in held(tmp_path)


@pytest.mark.parametrize(
    "note",
    [
        *("karmic.img.aria2", "karmic.img.st", "karmic.img.part", "karmic.img.PART", "Karmic.img.crdownload"),
        *(
            "karmic.img.lftp-pget-status",
            "karmic.img.b1c2d3e4.partial",
            "karmic.img.download",
            "karmic.img.tmp",
        ),
    ],
)
@pytest.mark.parametrize("place", ["", "set/"])
def test_a_file_is_waited_for_while_a_download_tool_keeps_its_note_beside_it(
    tmp_path: Path, note: str, place: str
) -> None:
    lay(tmp_path, {f"{place}karmic.img": MBR, place + note: "x"})
    sentence = held(tmp_path, "set" if place else "karmic")
    assert f"{place}{note} is beside it" in sentence
    (tmp_path / (place + note)).unlink()
    only(tmp_path)


def test_a_finished_set_is_not_undone_by_later_files_near_it(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.img": MBR})
    taken = {"karmic": [(member.path, member.stamp) for member in only(tmp_path).members]}
    lay(tmp_path, {"karmic.yaml": PRIVATE, "karmic.img.aria2": "x", "karmik.toml": ""})
    assert [found.name for found in again(tmp_path, taken).ready] == ["karmic"]
    (tmp_path / "karmic.img").write_bytes(MBR + MBR)
    assert not again(tmp_path, taken).ready


@pytest.mark.parametrize(
    ("image", "sidecar"),
    [
        *(("karmic.img", "krmci.toml"), ("karmic.img", "kamric.toml"), ("production.img", "prodcutoin.toml")),
        *(("web_01.img", "web-1.toml"), ("db007.img", "DB-7.toml"), ("node-0.img", "node00.toml")),
    ],
)
def test_two_misspellings_or_extra_zeros_still_mean_the_same_name(
    tmp_path: Path, image: str, sidecar: str
) -> None:
    lay(tmp_path, {image: MBR, sidecar: PRIVATE})
    assert f"rename it to {image[:-4]}.toml" in held_by(tmp_path, image[:-4])
    (tmp_path / sidecar).rename(tmp_path / f"{image[:-4]}.toml")
    assert only(tmp_path).sidecar.public is False


@pytest.mark.parametrize(
    ("image", "sidecar"),
    [
        *(("web-de.img", "web-fr.toml"), ("prod-east.img", "prod-west.toml"), ("staging.img", "strong.toml")),
        *(("node-0.img", "node-10.toml"), ("web1.img", "web10.toml"), ("karmic.img", "cosmic9.toml")),
    ],
)
def test_another_word_or_number_is_another_name(tmp_path: Path, image: str, sidecar: str) -> None:
    lay(tmp_path, {image: MBR, sidecar: PRIVATE})
    assert [found.name for found in decided(tmp_path).ready] == [image[:-4]]


def test_many_names_are_compared_in_a_time_that_does_not_grow_with_their_pairs(tmp_path: Path) -> None:
    lay(tmp_path, {f"production-{number}.img": MBR for number in range(1, 400)})
    lay(tmp_path, {f"prodction-{number}.toml": PRIVATE for number in range(1, 400)})
    assert not decided(tmp_path).ready


@pytest.mark.parametrize(
    ("image", "sidecar", "text"),
    [
        ("web-a{:05}x", "web-b{:05}y", PRIVATE),
        ("web-a{:05}x", "-web-{:05}", f'{PRIVATE}machine = "web"'),
        ("web-a{:05}x", "other{:05}", f'{PRIVATE}machine = "image"'),
        (f"{'a-' * 60}{{:05}}x", f"{'a-' * 60}b{{:05}}y", PRIVATE),
        (f"{'a-' * 60}{{:05}}x", f"{'a_' * 60}b{{:05}}y", PRIVATE),
    ],
)
def test_names_that_begin_alike_are_compared_in_a_time_that_does_not_grow_with_their_pairs(
    tmp_path: Path, image: str, sidecar: str, text: str
) -> None:
    lay(tmp_path, {f"{image.format(number)}.img": MBR for number in range(2000)})
    lay(tmp_path, {f"{sidecar.format(number)}.toml": text for number in range(2000)})
    listing = scan.scan(tmp_path, now=NOW, seen=0.0, budget=contents.ReadBudget(seconds=60))
    begun = time.process_time()
    assemble(listing, rules=ALONE)
    assert time.process_time() - begun < 6


def test_of_names_by_the_thousand_those_that_begin_with_a_sidecar_s_name_are_held(tmp_path: Path) -> None:
    lay(tmp_path, {f"web-a{number:04}x.img": MBR for number in range(1000)})
    lay(tmp_path, {f"web-b{number:04}y.toml": PRIVATE for number in range(1000)})
    lay(tmp_path, {"web.toml": PRIVATE})
    listing = scan.scan(tmp_path, now=NOW, seen=0.0, budget=contents.ReadBudget(seconds=60))
    assert not assemble(listing, rules=ALONE).ready


@pytest.mark.parametrize("name", ["x", "x.toml"])
@pytest.mark.parametrize(
    "filling", ["~", "#", " ", "\u3000", "~ ", "_", "- ", ".bak", ".1~", ".12345678", " (1)", " copy"]
)
@pytest.mark.parametrize("behind", ["", "~", "x"])
def test_no_long_name_slows_a_scan(tmp_path: Path, name: str, filling: str, behind: str) -> None:
    space = 245 - len(name + behind)
    long = f"{name}{filling * (space // len(filling.encode()))}{behind}"
    lay(tmp_path, {f"{number:03}{long}": "" for number in range(100)})
    listing = scan.scan(tmp_path, now=NOW, seen=0.0)
    begun = time.process_time()
    assert not assemble(listing, rules=ALONE).ready
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    "name", ["karmic,toml", "karmictoml", "karmic_json", "karmik.conf", "karmic-site.cfg"]
)
def test_what_reads_like_a_sidecar_holds_the_set_that_it_nearly_names(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: PRIVATE})
    sentence = held(tmp_path)
    assert name in sentence
    assert "rite what it says into karmic.toml, as TOML" in sentence


@pytest.mark.parametrize(
    "name", ["meta/karmic.toml", "new/karmic.json", "meta/KARMIC.img.toml", "x/karmic.conf"]
)
def test_a_sidecar_in_a_folder_without_an_image_may_be_meant_for_a_set_beside_it(
    tmp_path: Path, name: str
) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: '{"public": false}' if "json" in name else PRIVATE})
    assert f"{name}: it is not read" in held(tmp_path)


@pytest.mark.parametrize("name", ["new/image.toml", "new/lucid.toml", "new/package.json", "image/image.toml"])
def test_a_sidecar_in_a_folder_that_waits_for_its_own_image_holds_no_other_set(
    tmp_path: Path, name: str
) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: '{"name": "x"}' if "json" in name else PRIVATE})
    assert [found.name for found in decided(tmp_path).ready] == ["karmic"]


@pytest.mark.parametrize(
    "name", ["karmic.toml.txt", ".karmic.toml", "karmic.yaml", "karmic.toml~", "Karmic.tml"]
)
def test_what_is_beside_a_set_s_folder_and_has_its_name_holds_it(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {"karmic/disk.img": MBR, name: PRIVATE})
    sentence = held(tmp_path)
    assert name in sentence
    assert "karmic/image.toml" in sentence


def test_a_sidecar_beside_the_folder_of_its_name_is_to_be_moved_into_it(tmp_path: Path) -> None:
    lay(
        tmp_path, {"a b/disk.img": MBR, "a b.toml": PRIVATE, "c/disk.img": MBR, "c.JSON": '{"public": false}'}
    )
    for one in decided(tmp_path).refused:
        run(tmp_path, str(one.error.hint).partition("Try: ")[2])
    assert {f.name: f.sidecar.given for f in decided(tmp_path).ready} == dict.fromkeys(
        ("a b", "c"), frozenset({"public"})
    )


@pytest.mark.parametrize("below", ["meta/image.toml", "sums/SHA256SUMS", "old/readme"])
def test_a_folder_in_a_set_s_folder_is_reported_before_the_set_goes_up(tmp_path: Path, below: str) -> None:
    lay(tmp_path, {"one/disk.img": MBR})
    (tmp_path / "one" / below).parent.mkdir()
    (tmp_path / "one" / below).write_text(PRIVATE)
    folder = f"one/{below.partition('/')[0]}/"
    assert only(tmp_path).unread == (f"{folder} is not looked into: a set's files are side by side",)


@pytest.mark.parametrize("machine", ["karmik.img", "Karmic.img", "karmic.raw", "karmic-server.img"])
def test_a_sidecar_that_names_another_image_is_told_which_to_name(tmp_path: Path, machine: str) -> None:
    lay(tmp_path, {"karmic.img": MBR, "mine.toml": f'{PRIVATE}machine = "{machine}"\n'})
    sentence = held_by(tmp_path, "karmic")
    assert 'say machine = "karmic.img" in it' in sentence
    lay(tmp_path, {"mine.toml": f'{PRIVATE}machine = "karmic.img"\n'})
    assert only(tmp_path).sidecar.public is False


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("karmic.yaml", 'public: false\nshare:\n  - "123456789012"\n  - "210987654321"\n  - 310987654321\n'),
        ("karmic.yml", "public: false\nshare:\n- 123456789012\n- 210987654321\n- 310987654321\n"),
        ("karmic.toml.txt", 'public = false\nshare = [\n  "123456789012",\n  "210987654321",\n  "3",\n]\n'),
        ("karmic.txt", '{"public": false, "share": [\n"123456789012",\n\'210987654321\',\n3,\n]}'),
        ("karmic.conf", "public = false\nshare =\n  123456789012,\n  210987654321,\n  310987654321,\n"),
    ],
)
def test_a_list_of_several_lines_is_no_prose(tmp_path: Path, name: str, said: str) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: said})
    assert name in held(tmp_path)


# --- metadata of root's beside a member's image -----------------------------------------------------------

SEPARATE = replace(ALONE, users=FolderUsers(frozenset({0})))
NEAR = [
    ("karmik.toml", PRIVATE),
    ("karmic.img.toml", PRIVATE),
    ("karmic.yaml", "public: false\n"),
    ("image.toml", PRIVATE),
    ("karmic.toml.txt", PRIVATE),
    ("web.toml", f'{PRIVATE}machine = "karmic.img" x'),
]


def beside_root(folder: Path, files: Mapping[str, str | bytes]) -> FolderSets:
    lay(folder, {"karmic.img": MBR, **files})
    os.chown(folder / "karmic.img", 1000, 1000)
    return assemble(scan.scan(folder, now=NOW, seen=0.0), rules=SEPARATE)


@pytest.mark.parametrize(("name", "said"), NEAR)
def test_what_root_may_have_meant_for_a_members_image_holds_it(tmp_path: Path, name: str, said: str) -> None:
    assembly = beside_root(tmp_path, {name: said})
    assert not assembly.ready
    reasons = [str(one.error) for one in assembly.refused] + [one.reason for one in assembly.waiting]
    assert any(name in sentence for sentence in reasons), assembly


@pytest.mark.parametrize("stem", ["karmik", "karmic2", "image", "web"])
def test_what_root_has_put_beside_an_image_of_its_own_holds_no_members(tmp_path: Path, stem: str) -> None:
    assembly = beside_root(tmp_path, {f"{stem}.img": MBR, f"{stem}.toml": PRIVATE})
    assert [found.name for found in assembly.ready if found.owner == 1000] == ["karmic"]
