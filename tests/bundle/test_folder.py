import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from uecwatchd.bundle.folder import (
    BundleCredentials,
    ImageProperties,
    WrittenBundle,
    bundle_to_folder,
    unbundle_to_folder,
)
from uecwatchd.bundle.keys import public_key
from uecwatchd.bundle.manifest import read_manifest
from uecwatchd.errors import Deferred, Halted, NotPermitted, Rejected
from uecwatchd.system.file_errors import NoOutput

IMAGE = b"boot" * 4096 + bytes(1024 * 1024) + b"root" * 4096


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "karmic.img"
    path.write_bytes(IMAGE)
    return path


def ignore(_done: int) -> None:
    pass


@pytest.fixture
def make(user, cloud) -> Callable[..., Path]:
    def bundle(
        source: Path, folder: Path, *, key=user.key, kind="machine", progress=lambda _done: None, **ids
    ) -> Path:
        credentials = BundleCredentials("000100000001", key, user.certificate, cloud.certificate)
        properties = ImageProperties(kind, "x86_64", **ids)
        return bundle_to_folder(source, folder, properties, credentials, progress=progress).path

    return bundle


@pytest.fixture
def made(make: Callable, source: Path, tmp_path: Path) -> Path:
    return make(source, tmp_path / "bundle", kernel_id="eki-AAAA0001", ramdisk_id="eri-BBBB0002")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("side", ["user", "cloud"])
def test_what_is_bundled_into_a_folder_is_unbundled_from_it(
    made: Path, tmp_path: Path, user, cloud, side
) -> None:
    key = user.key if side == "user" else cloud.key
    signer = public_key(user.certificate)
    out, found = unbundle_to_folder(made, tmp_path / "out", key=key, side=side, signer=signer)
    assert (found.size, found.digest) == (len(IMAGE), hashlib.sha256(IMAGE).hexdigest())
    assert out.name == "karmic.img"
    assert out.read_bytes() == IMAGE
    assert names(tmp_path / "out") == ["karmic.img"]


def test_the_folder_holds_the_manifest_and_its_parts_and_nothing_else(made: Path) -> None:
    manifest = read_manifest(made.read_bytes())
    assert (manifest.kernel_id, manifest.ramdisk_id) == ("eki-AAAA0001", "eri-BBBB0002")
    assert names(made.parent) == sorted([made.name, *(part.name for part in manifest.parts)])
    assert made.name.startswith("karmic.img-")
    assert {path.stat().st_mode & 0o137 for path in made.parent.iterdir()} == {0}


@pytest.mark.parametrize(
    ("kind", "name"), [("kernel", "vmlinuz-karmic.img-"), ("ramdisk", "initrd-karmic.img-")]
)
def test_a_kernel_and_a_ramdisk_are_named_and_marked_as_such(
    make, source: Path, tmp_path: Path, kind, name
) -> None:
    path = make(source, tmp_path / "bundle", kind=kind)
    assert path.name.startswith(name)
    assert read_manifest(path.read_bytes()).kind == kind


def test_zeros_of_an_image_become_holes_in_the_file(made: Path, tmp_path: Path, user) -> None:
    out, _ = unbundle_to_folder(made, tmp_path / "out", key=user.key, side="user")
    assert out.stat().st_size == len(IMAGE)
    assert out.stat().st_blocks * 512 < len(IMAGE) / 2


def test_an_image_that_ends_in_zeros_keeps_its_length(make, source: Path, tmp_path: Path, user) -> None:
    source.write_bytes(b"boot" + bytes(300_000))
    out, _ = unbundle_to_folder(make(source, tmp_path / "b"), tmp_path / "out", key=user.key, side="user")
    assert out.read_bytes() == b"boot" + bytes(300_000)


def test_a_second_bundle_of_the_same_image_overwrites_nothing(make, made: Path, source: Path) -> None:
    before = {path: path.read_bytes() for path in made.parent.iterdir()}
    with pytest.raises(Rejected, match="there is one in"):
        make(source, made.parent)
    assert {path: path.read_bytes() for path in made.parent.iterdir()} == before


def test_an_existing_part_is_not_overwritten_and_no_other_part_remains(
    make, made: Path, source: Path
) -> None:
    part = made.with_name(made.name.replace(".manifest.xml", ".part.0"))
    made.unlink()
    part.write_bytes(b"mine")
    with pytest.raises(Rejected, match=r"part\.0: there is one in"):
        make(source, made.parent)
    assert names(made.parent) == [part.name]
    assert part.read_bytes() == b"mine"


@pytest.mark.parametrize("there", ["file", "dangling link", "folder"])
def test_unbundling_never_overwrites(made: Path, tmp_path: Path, user, there: str) -> None:
    out = tmp_path / "out" / "karmic.img"
    out.parent.mkdir()
    match there:
        case "file":
            out.write_bytes(b"mine")
        case "dangling link":
            out.symlink_to("elsewhere")
        case "folder":
            out.mkdir()
    with pytest.raises(Rejected, match=r"karmic\.img: there is one in"):
        unbundle_to_folder(made, out.parent, key=user.key, side="user")
    assert names(out.parent) == ["karmic.img"]
    assert not (out.parent / "elsewhere").exists()


def test_a_damaged_part_leaves_no_image(made: Path, tmp_path: Path, user) -> None:
    part = next(made.parent.glob("*.part.0"))
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    with pytest.raises(Rejected, match=r"part\.0: its SHA-1 is"):
        unbundle_to_folder(made, tmp_path / "out", key=user.key, side="user")
    assert names(tmp_path / "out") == []


def test_a_missing_part_is_named(made: Path, tmp_path: Path, user) -> None:
    next(made.parent.glob("*.part.0")).unlink()
    with pytest.raises(Rejected, match=r"part\.0: there is no such file in"):
        unbundle_to_folder(made, tmp_path / "out", key=user.key, side="user")


PLANTED = ("link", "dangling link", "fifo", "device", "folder", "link to a device")


def plant(path: Path, what: str) -> None:
    """Put something in the place of a file."""
    kept = path.rename(path.with_name("kept"))
    match what:
        case "link":
            path.symlink_to(kept)
        case "dangling link":
            path.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(path)
        case "device":
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero, which has no end
        case "folder":
            path.mkdir()
        case "link to a device":
            path.symlink_to("/dev/zero")


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize("of", ["*.part.0", "*.manifest.xml"])
def test_only_regular_files_of_a_bundle_are_read(
    made: Path, tmp_path: Path, user, of: str, what: str
) -> None:
    planted = next(made.parent.glob(of))
    plant(planted, what)
    with pytest.raises(Rejected, match=r"it is (a symbolic link|a folder|not a regular file)") as refused:
        unbundle_to_folder(made, tmp_path / "out", key=user.key, side="user")
    assert refused.value.exit_code == 66
    assert planted.name in refused.value.what
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == []


def test_a_file_that_was_swapped_while_it_was_written_is_not_published(
    made: Path, tmp_path: Path, user
) -> None:
    """A person with the right to write to the folder cannot put another file under the image's name."""
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.write_bytes(b"another's")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for path in out.glob(".uecwatchd-*"):
                with contextlib.suppress(OSError):
                    path.unlink()
                    path.hardlink_to(other)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        with contextlib.suppress(Rejected):
            unbundle_to_folder(made, out, key=user.key, side="user")
    finally:
        done.set()
        thread.join()
    image = out / "karmic.img"
    assert not image.exists() or image.read_bytes() == IMAGE


def test_a_manifest_that_somebody_else_signed_is_refused(made: Path, tmp_path: Path, user, cloud) -> None:
    with pytest.raises(Rejected, match="its signature was not made with"):
        unbundle_to_folder(
            made, tmp_path / "out", key=user.key, side="user", signer=public_key(cloud.certificate)
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("signed", ["by any key", "by another user"])
def test_the_bundle_of_another_key_is_refused_with_that_reason(
    made: Path, tmp_path: Path, cloud, signed: str
) -> None:
    certificate = public_key(cloud.certificate) if signed == "by another user" else None
    with pytest.raises(Rejected, match="it was not encrypted for this key") as refused:
        unbundle_to_folder(made, tmp_path / "out", key=cloud.key, side="user", signer=certificate)
    assert "bundled for" in refused.value.hint
    assert "again" not in refused.value.hint


def test_a_key_of_another_certificate_halts_before_anything_is_written(
    make, source: Path, tmp_path: Path, cloud
) -> None:
    with pytest.raises(Halted, match="does not belong to the user's certificate"):
        make(source, tmp_path / "bundle", key=cloud.key)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: os.mkfifo(path), "it is not a regular file"),
        (lambda path: None, "there is no such file"),
    ],
    ids=["empty", "folder", "fifo", "missing"],
)
def test_only_a_file_with_something_in_it_is_bundled(make, tmp_path: Path, plant, why: str) -> None:
    path = tmp_path / "odd.img"
    plant(path)
    with pytest.raises(Rejected, match=rf"odd\.img: {why}"):
        make(path, tmp_path / "bundle")


def test_an_image_that_changes_while_it_is_bundled_is_deferred_and_leaves_nothing(
    make, source: Path, tmp_path: Path
) -> None:
    changes = iter([b"BOOT", b""])

    def meddle(_: int) -> None:
        with source.open("r+b") as file:
            file.seek(len(IMAGE) - 4)  # behind what has been read when the first chunk is reported
            file.write(next(changes, b""))

    with pytest.raises(Deferred, match="it changed while being read"):
        make(source, tmp_path / "bundle", progress=meddle)
    assert names(tmp_path / "bundle") == []


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_deferred_and_leaves_nothing(make, tmp_path: Path, small_disk: Path) -> None:
    source = tmp_path / "dense.img"
    source.write_bytes(os.urandom(3 * 1024 * 1024))
    with pytest.raises(Deferred, match="cannot write there: No space left on device"):
        make(source, small_disk)
    assert names(small_disk) == []


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("karmic.img/bundle", "cannot write there: Not a directory"),
        ("karmic.img", "it is not a folder"),
        ("/proc/bundle", "cannot write there: No such file or directory"),
        ("/proc", "cannot write there: No such file or directory"),
    ],
)
def test_a_folder_that_cannot_be_created_is_reported(
    make, source: Path, tmp_path: Path, folder: str, why: str
) -> None:
    with pytest.raises(NoOutput, match=why):
        make(source, tmp_path / folder)


def test_progress_describes_what_is_bundled(source: Path, tmp_path: Path, user, cloud) -> None:
    credentials = BundleCredentials("000100000001", user.key, user.certificate, cloud.certificate)
    made: WrittenBundle = bundle_to_folder(
        source, tmp_path / "b", ImageProperties("machine", "i386"), credentials
    )
    assert made.digest == hashlib.sha256(IMAGE).hexdigest()
    assert (made.manifest.kind, made.manifest.arch, made.manifest.size) == ("machine", "i386", len(IMAGE))
    assert [part.size for part in made.manifest.parts] == [made.manifest.bundled_size]


def test_a_folder_without_access_is_reported_as_missing_permission(
    make, source: Path, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(NotPermitted, match="cannot write there: Read-only file system"):
        make(source, small_disk)
