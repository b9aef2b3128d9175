"""A compressed disk is a member of its set; an archive is reported once, with a command that works."""

import subprocess
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.scanned_folder import MBR, decided, lay, row_of
from uecwatchd.events import Kind
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.leftover_files import MOST_REPORTED, report_leftover_files

TARBALLS = [
    ("k c.tar.gz", "tar -czf 'k c.tar.gz' karmic.img && rm karmic.img"),
    (
        "web-2026-11-28T10:00.tar.gz",
        "tar -czf k karmic.img && mv k web-2026-11-28T10:00.tar.gz && rm karmic.img",
    ),
    ("-k.tar", "tar -cf ./-k.tar karmic.img && rm karmic.img"),
    ("k.tgz", "tar -czf k.tgz karmic.img && rm karmic.img"),
    ("k.tar.zst", "tar --zstd -cf k.tar.zst karmic.img && rm karmic.img"),
]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("karmic.img.lzma", "xz --format=lzma karmic.img"),
        ("karmic.img.lz4", "lz4 -q karmic.img karmic.img.lz4 && rm karmic.img"),
        ("karmic.img.lzo", "lzop -qU karmic.img"),
        ("karmic.img.br", "brotli --rm karmic.img"),
        ("k.tar.lz4", "tar -c karmic.img | lz4 -q > k.tar.lz4 && rm karmic.img"),
        ("k.ova", "tar -cf k.ova karmic.img && rm karmic.img"),
        ("k.iso.zip", "python3 -m zipfile -c k.iso.zip karmic.img && rm karmic.img"),
        ("nothing", "tar -cf nothing karmic.img && rm karmic.img"),
    ],
)
@pytest.mark.parametrize("place", ["", "a set/"])
def test_a_packed_image_is_no_set_and_the_command_of_its_reason_unpacks_it(
    tmp_path: Path, name: str, pack: str, place: str
) -> None:
    check_command(tmp_path, name, pack, place)


@pytest.mark.parametrize(("name", "pack"), TARBALLS)
def test_a_tarball_in_a_sets_folder_is_not_unpacked(tmp_path: Path, name: str, pack: str) -> None:
    check_command(tmp_path, name, pack, "a set/")


@pytest.mark.parametrize(("name", "pack"), TARBALLS)
def test_a_tarball_in_the_folder_itself_is_a_set(tmp_path: Path, name: str, pack: str) -> None:
    lay(tmp_path, {"karmic.img": MBR})
    subprocess.run(["sh", "-c", pack], cwd=tmp_path, check=True)
    (found,) = decided(tmp_path).ready
    assert (found.form, found.members, found.files) == ("archive", (), (name,))
    assert f"archive {name} (" in row_of(tmp_path, found.name).detail


def check_command(tmp_path: Path, name: str, pack: str, place: str) -> None:
    lay(tmp_path, {f"{place}karmic.img": MBR})
    subprocess.run(["sh", "-c", pack], cwd=tmp_path / place, check=True)
    (misfit,) = decided(tmp_path).unmatched
    assert misfit.is_news
    assert misfit.path == place + name
    assert not decided(tmp_path).ready
    assert row_of(tmp_path, place + name).detail == misfit.reason
    subprocess.run(
        ["sh", "-c", misfit.reason.partition("Try: ")[2]], cwd=tmp_path, check=True, capture_output=True
    )
    (found,) = decided(tmp_path).ready
    assert found.members[0].path.lower() == f"{place}karmic.img"


@pytest.mark.parametrize(
    ("name", "pack", "size"),
    [
        ("karmic.img.zst", "zstd -q --rm karmic.img", 4096),
        ("karmic.img.zst", "zstd -q < karmic.img > karmic.img.zst && rm karmic.img", None),
        ("karmic.img.gz", "gzip karmic.img", None),
        ("karmic.img.xz", "xz karmic.img", 4096),
        ("karmic.img.bz2", "bzip2 karmic.img", None),
        ("Karmic.IMG.ZST", "zstd -q --rm karmic.img && mv karmic.img.zst Karmic.IMG.ZST", 4096),
        ("karmic.raw.XZ", "xz karmic.img && mv karmic.img.xz karmic.raw.XZ", 4096),
        ("karmic.gz", "gzip karmic.img && mv karmic.img.gz karmic.gz", None),
        ("karmic", "bzip2 karmic.img && mv karmic.img.bz2 karmic", None),
        ("karmic.qcow2", "gzip karmic.img && mv karmic.img.gz karmic.qcow2", None),
    ],
)
@pytest.mark.parametrize("place", ["", "karmic/"])
def test_a_compressed_disk_is_in_the_set_of_its_name_without_the_suffixes(
    tmp_path: Path, name: str, pack: str, size: int | None, place: str
) -> None:
    lay(tmp_path, {f"{place}karmic.img": MBR})
    subprocess.run(["sh", "-c", pack], cwd=tmp_path / place, check=True)
    (found,) = decided(tmp_path).ready
    assert found.name.lower() == "karmic"
    (member,) = found.members
    assert (member.path, member.role, member.reading) == (place + name, "machine", "disk")
    assert (member.facts.layout, member.facts.inside) == ("disk", "mbr")
    assert member.facts.disk
    assert member.facts.disk.size == size
    assert not decided(tmp_path).unmatched


@pytest.mark.parametrize("pack", ["gzip", "xz", "bzip2", "zstd -q --rm"])
def test_a_compressed_disk_is_kept_as_it_is_if_the_sidecar_says_so(tmp_path: Path, pack: str) -> None:
    lay(tmp_path, {"web": MBR})
    subprocess.run(["sh", "-c", f"{pack} web && mv web.* web.bin"], cwd=tmp_path, check=True)
    lay(tmp_path, {"web.toml": 'machine = "web.bin"\nconvert = "keep"\n'})
    (found,) = decided(tmp_path).ready
    assert found.members[0].reading == "file"
    assert found.members[0].size == (tmp_path / "web.bin").stat().st_size


@pytest.mark.parametrize("pack", ["gzip", "xz --check=crc32", "zstd -q --rm", "bzip2"])
@pytest.mark.parametrize(("boot", "content"), [("initrd", b"070701" + bytes(600)), ("floppy.ramdisk", b"")])
def test_a_compressed_ramdisk_is_taken_as_it_is(tmp_path: Path, pack: str, boot: str, content: bytes) -> None:
    lay(tmp_path, {"web/web.img": MBR, f"web/{boot}": content or ext2(tmp_path)})
    lay(tmp_path, {"web/vmlinuz": bytes(56) + b"ARM\x64" + bytes(4036)})
    subprocess.run(["sh", "-c", f"{pack} {boot}"], cwd=tmp_path / "web", check=True)
    members = {member.role: member for found in decided(tmp_path).ready for member in found.members}
    assert "ramdisk" in members, decided(tmp_path)
    assert members["ramdisk"].reading == "file"


def ext2(folder: Path) -> bytes:
    made = folder / "made"
    subprocess.run(["mke2fs", "-q", "-t", "ext2", made, "256"], check=True)
    content = made.read_bytes()
    made.unlink()
    return content


def test_a_compressed_image_beside_its_unpacked_form_is_not_reported(tmp_path: Path) -> None:
    lay(tmp_path, {"karmic.img": MBR})
    subprocess.run(["zstd", "-q", "karmic.img"], cwd=tmp_path, check=True)
    assembly = decided(tmp_path)
    assert [found.name for found in assembly.ready] == ["karmic"]
    assert [(one.reason, one.is_news) for one in assembly.unmatched] == [
        ("karmic.img is there unpacked", False)
    ]


@pytest.mark.parametrize("name", ["karmic.xva", "Karmic.WIM", "karmic.dmg"])
@pytest.mark.parametrize("like", ["nothing", "a tar"])
def test_an_export_of_another_program_is_reported_with_the_conversion(
    tmp_path: Path, name: str, like: str
) -> None:
    lay(tmp_path, {name: b"\x01" * 600, "ova.xml": "<x/>"})
    if like == "a tar":
        subprocess.run(["tar", "-cf", name, "ova.xml"], cwd=tmp_path, check=True)
    (misfit,) = [one for one in decided(tmp_path).unmatched if one.path == name]
    assert misfit.is_news
    assert "disk" in misfit.reason


@pytest.mark.parametrize("name", ["dump.sql.gz", "notes.txt.xz", "syslog.1.zst"])
def test_a_compressed_file_that_is_no_image_is_not_reported(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {name: b"\x28\xb5\x2f\xfd" + bytes(20)})
    (misfit,) = decided(tmp_path).unmatched
    assert not misfit.is_news


def test_each_is_reported_once_while_it_is_there_and_many_are_reported_together(
    tmp_path: Path, listener: Recorder
) -> None:
    conditions = Conditions(listener)

    def look() -> None:
        report_leftover_files(tmp_path, decided(tmp_path).unmatched, conditions=conditions, listener=listener)

    lay(tmp_path, {"k.tar.lz4": "x", "web.raw.1": MBR, "notes.md": "x"})
    for _ in range(3):
        look()
    assert len(listener.sentences(Kind.LEFT_OUT)) == 2
    (tmp_path / "k.tar.lz4").unlink()
    look()
    lay(tmp_path, {"k.tar.lz4": "x"})
    look()
    assert len(listener.sentences(Kind.LEFT_OUT)) == 3
    lay(tmp_path, {f"m{number}.tlz": "x" for number in range(MOST_REPORTED + 5)})
    look()
    sentences = listener.sentences(Kind.LEFT_OUT)[3:]
    assert len(sentences) == MOST_REPORTED + 1
    assert sentences[-1].startswith("5 more files are in no set")


def test_the_service_reports_a_packed_image_and_what_is_not_checked(host: Host) -> None:
    disk = host.spool / "web.img"
    disk.write_bytes(MBR)
    (host.spool / "web.toml").write_text('kernel = "none"\nramdisk = "none"\npublic = false\n')
    (host.spool / "web.img.md5").write_text("0" * 32 + "  web.img\n")
    (host.spool / "more.ova").write_bytes(b"x")
    done = host.run("once")
    assert "more.ova: an archive is not taken as it is. Try: tar -xf more.ova" in done.stderr
    log = (host.spool / "web.uec.log").read_text()
    assert "web.img.md5 is not checked: only SHA-256 is" in log
