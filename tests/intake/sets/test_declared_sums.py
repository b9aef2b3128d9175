"""Every SHA-256 that somebody put beside an image is compared or reported: real files in a real folder."""

import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.scanned_folder import MBR, decided, lay, row_of
from uecwatchd.intake.spool import scan
from uecwatchd.ledger.records import SetRecord
from uecwatchd.service.file_removal import files_to_retire
from uecwatchd.types import SetId

RIGHT = hashlib.sha256(MBR).hexdigest()
WRONG = "0" * 64
OTHER = "f" * 64
SIGNED = (
    "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# karmic.img: 4096 bytes\n"
    f"SHA256 (karmic.img) = {WRONG}\n-----BEGIN PGP SIGNATURE-----\n\niQIz\n-----END PGP SIGNATURE-----\n"
)


def refusal(folder: Path, name: str = "karmic") -> str:
    assembly = decided(folder)
    assert not assembly.ready, assembly
    return next(str(one.error) for one in assembly.refused if one.name == name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("karmic.img.sha256", WRONG),
        ("karmic.img.sha256", f"{WRONG}\r\n"),
        ("karmic.img.sha256", f"{WRONG}  karmic.img\n"),
        ("karmic.img.sha256", f"{WRONG} *karmic.img\n"),
        ("karmic.img.sha256", f"{WRONG}  /home/ann/karmic.img\n"),
        ("karmic.img.SHA256", f"\ufeff{WRONG}  ./karmic.img\n"),
        ("KARMIC.IMG.SHA256", f"{WRONG}  karmic.img\n"),
        ("karmic.img.sha256sum", WRONG),
        ("karmic.img.sha256.txt", WRONG.upper()),
        ("karmic.img.CHECKSUM", f"# karmic.img: 4096 bytes\nSHA256 (karmic.img) = {WRONG}\n"),
        ("karmic.sha256sums", f"{WRONG}  karmic.img\n"),
        ("SHA256SUMS", f"{OTHER} *lucid.img\n{WRONG} *karmic.img\n"),
        ("SHA256SUMS.txt", f"{WRONG}  karmic.img\n"),
        ("sha256sum.txt", f"{WRONG}  karmic.img\n"),
        ("SHA256", f"{WRONG}  karmic.img\n"),
        ("checksums.txt", f"{'a' * 32}  karmic.img\n{WRONG}  karmic.img\n{'b' * 128}  karmic.img\n"),
        ("CHECKSUM", f"MD5 (karmic.img) = {'a' * 32}\nSHA256 (karmic.img) = {WRONG}\n"),
        ("CHECKSUM.SHA256-FreeBSD-14.1", f"SHA256 (karmic.img) = {WRONG}\n"),
        ("Fedora-Cloud-41-1.4-x86_64-CHECKSUM", SIGNED),
        ("SHA256SUMS", f"SHA2-256(karmic.img)= {WRONG}\n"),
        ("mine.sha256", f"{WRONG}  karmic.img\n"),
        ("SHA256SUMS", f"{OTHER}  other/karmic.img\n{WRONG}  karmic.img\n"),
        ("SHA256SUMS", f"{OTHER}  lucid.img\0{WRONG}  karmic.img\0"),
        ("karmic.sha256", f"{WRONG} *karmic.img\0"),
    ],
)
@pytest.mark.parametrize("place", ["", "karmic/"])
def test_a_list_counts_by_its_name_and_by_the_files_it_names(
    tmp_path: Path, name: str, text: str, place: str
) -> None:
    lay(tmp_path, {f"{place}karmic.img": MBR, place + name: text})
    (found,) = decided(tmp_path).ready
    assert found.checksums["karmic.img"] == WRONG
    assert place + name in found.files
    assert row_of(tmp_path, "karmic").files.count(place + name) == 1


def test_what_sha256sum_writes_with_a_tag_or_an_odd_name_is_read(tmp_path: Path) -> None:
    lay(tmp_path, {"a\\b.img": MBR, "(c) d.img": MBR})
    for name, options in (("1.sha256sum", ["--tag"]), ("2.sha256sum", ["--binary"])):
        done = subprocess.run(
            ["sha256sum", *options, "a\\b.img", "(c) d.img"], cwd=tmp_path, capture_output=True, check=True
        )
        assert done.stdout.startswith(b"\\")
        (tmp_path / name).write_bytes(done.stdout)
    assert [dict(found.checksums) for found in decided(tmp_path).ready] == [
        {"(c) d.img": RIGHT},
        {"a\\b.img": RIGHT},
    ]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("karmic.img.sha256", "<html>404</html>", "line 1 is not a SHA-256"),
        ("karmic.img.sha256", "", "it holds no checksum"),
        ("karmic.img.sha256", WRONG[:40], "line 1 is not a SHA-256"),
        ("karmic.img.sha256", f"{WRONG}  karmik.img\n", "it names no file of this set"),
        ("karmic.sha256", f"{WRONG}  KARMIC.IMG\n", "it names no file of this set"),
        ("karmic.img.CHECKSUM", "<html>", "line 1 is not a SHA-256"),
        ("SHA256SUMS", "<html>404</html>", "line 1 is not a SHA-256"),
        ("SHA256SUMS", f"{WRONG}  Karmic.img\n", 'SHA256SUMS names "Karmic.img"'),
        ("SHA256SUMS", f"{WRONG}  pool/karmic.img\n", 'SHA256SUMS names "pool/karmic.img"'),
        ("SHA256SUMS", f"{WRONG}  out\\karmic.img\n", 'SHA256SUMS names "out'),
        ("SHA256SUMS", f"{WRONG}  Karmic.img\r{OTHER}  x.img\r", 'SHA256SUMS names "Karmic.img"'),
        ("sha256sum.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("SHA256SUMS", f"{WRONG}   karmic.img\n", 'SHA256SUMS names " karmic.img"'),
        ("SHA256SUMS", f"{WRONG}  karmic.img \n", 'SHA256SUMS names "karmic.img "'),
        ("SHA256SUMS", f"{WRONG}  *karmic.img\n", 'SHA256SUMS names "*karmic.img"'),
        ("SHA256SUMS", f"{WRONG}  'karmic.img'\n", "SHA256SUMS names \"'karmic.img'\""),
        ("SHA256SUMS", f'{WRONG}  "./pool/Karmic.img",\n', "SHA256SUMS names "),
        ("SHA256SUMS", f"{WRONG}  \u201ckarmic.img\u201d\t\n", "SHA256SUMS names "),
        ("SHA256SUMS", f"{WRONG}  kar\u200bmic.img\x1b\n", "SHA256SUMS names "),
        ("CHECKSUM", f"SHA256 ( karmic.img ) = {WRONG}\n", 'CHECKSUM names " karmic.img "'),
    ],
)
def test_an_unreadable_list_for_a_set_holds_the_set(
    tmp_path: Path, name: str, text: str | bytes, why: str
) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: text})
    assert why in refusal(tmp_path)
    assert name in refusal(tmp_path)
    (tmp_path / name).unlink()
    assert decided(tmp_path).ready


@pytest.mark.parametrize(
    "files",
    [
        {"karmic.img.sha256": WRONG, "SHA256SUMS": f"{OTHER}  karmic.img\n"},
        {"karmic.sha256": f"{WRONG}  karmic.img\n", "karmic.img.sha256": OTHER},
        {"karmic.toml": f'sha256 = {{"karmic.img" = "{WRONG}"}}', "karmic.sha256": f"{OTHER}  karmic.img\n"},
        {"SHA256SUMS": f"{WRONG}  karmic.img\n", "CHECKSUM": f"SHA256 (karmic.img) = {OTHER}\n"},
    ],
    ids="+".join,
)
def test_contradicting_sums_are_refused_with_the_names_of_both_lists(
    tmp_path: Path, files: Mapping[str, str]
) -> None:
    lay(tmp_path, {"karmic.img": MBR, **files})
    assert all(name in refusal(tmp_path) for name in files)


def test_two_lists_that_agree_are_both_used(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {"karmic.img": MBR, "karmic.img.sha256": RIGHT, "SHA256SUMS": f"{RIGHT.upper()}  karmic.img\n"},
    )
    (found,) = decided(tmp_path).ready
    assert {"karmic.img.sha256", "SHA256SUMS"} <= set(found.files)


@pytest.mark.parametrize(
    "name",
    [
        *("karmic.img.md5", "karmic.md5", "karmic.img.sha512", "karmic.img.sha1", "karmic.img.asc"),
        *("karmic.img.sha3-256", "karmic.img.b3", "karmic.img.xxh64", "karmic.img.zsync", "karmic.img.meta4"),
        *("karmic.img.sig", "karmic.img.gpg", "MD5SUMS", "SHA512SUMS", "sha1sum.txt", "KARMIC.IMG.MD5"),
    ],
)
def test_sums_of_another_kind_and_signatures_are_reported_before_the_set_goes_up(
    tmp_path: Path, name: str
) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: f"{'a' * (64 if '3' in name else 32)}  karmic.img\n"})
    (found,) = decided(tmp_path).ready
    assert found.unread == (f"{name} is not checked: only SHA-256 is, as sha256sum writes it",)
    assert "not checked" in row_of(tmp_path, name).detail


def test_a_checksum_file_of_other_sums_alone_is_reported(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.img": MBR, "CHECKSUM": f"SHA512 (karmic.img) = {'a' * 128}\n"})
    (found,) = decided(tmp_path).ready
    assert "CHECKSUM is not checked" in found.unread[0]


def test_another_program_s_json_beside_a_sidecar_is_reported_before_the_set_goes_up(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.img": MBR, "karmic.toml": "", "karmic.json": '{"apiVersion": "v1"}'})
    (found,) = decided(tmp_path).ready
    assert found.unread == ("karmic.json is not read: the sidecar is karmic.toml",)


def test_a_list_for_many_files_stays_while_one_set_leaves_and_makes_no_set_new(tmp_path: Path) -> None:
    lay(tmp_path, {"a1.img": MBR, "b2.img": MBR, "SHA256SUMS": f"{RIGHT}  a1.img\n{RIGHT}  b2.img\n"})
    first = {found.name: found for found in decided(tmp_path).ready}
    records = {
        name: replace(SetRecord(SetId(str(tmp_path), name), found.stamp, "done", 0.0))
        for name, found in first.items()
    }
    listing = scan.scan(tmp_path, now=100.0, seen=0.0)
    leaving = files_to_retire(listing, decided(tmp_path), records, held=(), removal="archive")
    assert [one.path for one in leaving] == ["a1.img", "b2.img"]
    lay(tmp_path, {"SHA256SUMS": f"{RIGHT}  a1.img\n{RIGHT}  b2.img\n{OTHER}  c3.img\n"})
    assert {found.name: found.stamp for found in decided(tmp_path).ready} == {
        name: found.stamp for name, found in first.items()
    }
    lay(tmp_path, {"SHA256SUMS": f"{OTHER}  a1.img\n{RIGHT}  b2.img\n"})
    changed = {found.name: found.stamp for found in decided(tmp_path).ready}
    assert [name for name in changed if changed[name] != first[name].stamp] == ["a1"]


def test_a_list_of_one_set_alone_leaves_with_it(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.img": MBR, "SHA256SUMS": f"{RIGHT}  karmic.img\n"})
    (found,) = decided(tmp_path).ready
    assert not found.shared
    assert "SHA256SUMS" in found.files


def test_a_list_that_nobody_can_read_holds_no_set_that_has_another_or_is_finished(tmp_path: Path) -> None:
    lay(tmp_path, {"a1.img": MBR, "b2.img": MBR, "a1.img.sha256": RIGHT, "SHA256SUMS": "<html>"})
    assembly = decided(tmp_path)
    assert [found.name for found in assembly.ready] == ["a1"]
    assert [one.name for one in assembly.refused] == ["b2"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("karmic.sha256", f"{WRONG}  disk.img\n"),
        ("Karmic.SHA256", f"{WRONG}  karmic/disk.img\n"),
        ("karmic-sha256sums.txt", f"SHA256 (disk.img) = {WRONG}\n"),
        ("SHA256SUMS", f"{OTHER}  other.img\n{WRONG}  karmic/disk.img\n"),
        ("SHA256SUMS", f"{WRONG} *./karmic/disk.img\n"),
        ("CHECKSUMS", f"SHA256 (karmic/disk.img) = {WRONG}\n"),
    ],
)
def test_a_list_beside_a_set_s_folder_counts_for_what_is_in_it(tmp_path: Path, name: str, text: str) -> None:
    lay(tmp_path, {"karmic/disk.img": MBR, name: text})
    (found,) = decided(tmp_path).ready
    assert dict(found.checksums) == {"disk.img": WRONG}
    assert name in found.files


def test_a_list_tells_a_file_from_one_of_its_name_in_a_folder(tmp_path: Path) -> None:
    lay(tmp_path, {"disk.img": MBR, "karmic/disk.img": MBR})
    lay(tmp_path, {"SHA256SUMS": f"{WRONG}  disk.img\n{RIGHT}  karmic/disk.img\n"})
    assert {found.name: dict(found.checksums) for found in decided(tmp_path).ready} == {
        "disk": {"disk.img": WRONG},
        "karmic": {"disk.img": RIGHT},
    }


def test_a_list_beside_folders_that_nobody_can_read_holds_what_is_in_them(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic/disk.img": MBR, "SHA256SUMS": "<html>"})
    assert "SHA256SUMS: it cannot be used" in refusal(tmp_path)


def test_a_backup_beside_a_list_is_not_reported(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.img": MBR, "karmic.sha256": f"{RIGHT}  karmic.img\n", "karmic.sha256~": WRONG})
    (found,) = decided(tmp_path).ready
    assert found.unread == ()


@pytest.mark.parametrize("text", [f"{WRONG}  karmic.img 4096\n", f"{WRONG}  lucid.img\n"])
@pytest.mark.parametrize("name", ["SHA256SUMS", "hashes.sha256", "checksums.txt"])
def test_a_list_that_names_no_file_that_is_there_is_reported(tmp_path: Path, name: str, text: str) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: text})
    misfit = next(one for one in decided(tmp_path).unmatched if one.path == name)
    assert misfit.is_news
    assert "names no file" in misfit.reason


@pytest.mark.parametrize(
    "name",
    [
        *("karmic.sha256.old", "hashes.sha256.bak", "karmic.img.sha256~", "SHA256SUMS.bak.1", ".SHA256SUMS"),
        *("karmic.img.sha256.part", "SHA256SUMS.txt.orig", "karmic.img.CHECKSUM.save"),
    ],
)
def test_a_list_whose_name_is_passed_over_is_reported_before_the_set_goes_up(
    tmp_path: Path, name: str
) -> None:
    lay(tmp_path, {"karmic.img": MBR, "lucid.img": MBR, name: f"{WRONG}  karmic.img\n"})
    karmic, lucid = decided(tmp_path).ready
    assert karmic.unread == (f"{name} is not checked: its name is passed over",)
    assert lucid.unread == (() if "karmic" in name else karmic.unread)


@pytest.mark.parametrize("name", ["hashes.txt", "SUMS", "karmic.digests.lst", "SHA.TXT"])
def test_sums_under_a_name_that_no_list_has_are_reported(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {"a1.img": MBR, name: f"# made today\n{WRONG}  a1.img\n{OTHER}  b2.img\n"})
    misfit = next(one for one in decided(tmp_path).unmatched if one.path == name)
    assert misfit.is_news
    assert "not compared" in misfit.reason


@pytest.mark.parametrize("name", ["karmic.img.digest", "karmic.sha", "karmic.txt"])
def test_sums_under_a_wrong_name_that_is_nearly_the_set_s_hold_it(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: f"{WRONG}  karmic.img\n"})
    assert f"{name}: it is not read" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name", ["karmic.img.sha256", "karmic.img.CHECKSUM", "karmic.img.sha256.txt", "-k 1.img.sha256"]
)
def test_the_command_that_rewrites_a_list_does_so(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {name.partition(".img")[0] + ".img": MBR, name: "Algorithm  Hash\n"})
    (refused,) = decided(tmp_path).refused
    command = refused.error.hint.partition("Try: ")[2]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    (found,) = decided(tmp_path).ready
    assert list(found.checksums.values()) == [RIGHT]


@pytest.mark.parametrize("name", ["SHA256SUMS", "karmic.sha256", "sha256sum.txt"])
def test_a_list_of_unknown_files_is_not_to_be_written_by_a_command(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: "<html>"})
    assert refusal(tmp_path).endswith("Correct it, or move it away.")


@pytest.mark.parametrize("name", ["SHA256SUMS", "CHECKSUM", "Fedora-41-CHECKSUM", "sha256sum.txt"])
def test_a_mirror_s_list_in_a_set_s_folder_holds_nothing_and_is_reported(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {"karmic/disk.img": MBR})
    lay(tmp_path, {f"karmic/{name}": "".join(f"{OTHER} *lucid-{number}.iso\n" for number in range(300))})
    (found,) = decided(tmp_path).ready
    assert found.unread == (f"karmic/{name} is not compared: it names no file of this set",)
    assert "names no file" in row_of(tmp_path, f"karmic/{name}").detail
    lay(tmp_path, {f"karmic/{name}": f"{OTHER} *DISK.img\n"})
    assert f'karmic/{name} names "DISK.img"' in refusal(tmp_path)
    lay(tmp_path, {f"karmic/{name}": "<html>"})
    assert "cannot be used" in refusal(tmp_path)


def test_of_many_wrong_names_in_a_set_s_own_list_a_few_are_reported(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.img": MBR})
    lay(tmp_path, {"karmic.sha256": "".join(f"{OTHER}  lucid-{number}.iso\n" for number in range(300))})
    assert "lucid-0.iso, lucid-1.iso, lucid-2.iso and 297 more" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["karmic.sha256", "karmic.img.sha256"])
@pytest.mark.parametrize("packed", ["karmic.img.xz", "karmic.img.gz", "KARMIC.IMG.ZST", "karmic.img.br"])
def test_the_sum_of_a_packed_image_beside_the_unpacked_one_says_so(
    tmp_path: Path, name: str, packed: str
) -> None:
    lay(tmp_path, {"karmic.img": MBR, name: f"{OTHER}  {packed}\n"})
    assert "the sum of the packed image" in refusal(tmp_path)
