"""Preparation of real file systems, in real disks: the result is sound, and the file is not touched."""

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from io import FileIO
from pathlib import Path

import pytest

from tests.support.guest_images import LINUX, MAKERS, Content, Link, disk, empty, ext, fill, run
from tests.support.qemu import convert_compressed
from tests.support.sizes import MIB
from tests.support.waiting import until
from uecwatchd.errors import Deferred, Rejected
from uecwatchd.images.block_source import FileSource, read_exactly
from uecwatchd.images.formats.open import open_disk
from uecwatchd.images.guest.inspection import inspect_image
from uecwatchd.images.prepare.edit_script import LABEL
from uecwatchd.images.prepare.ext_state import read_ext_state
from uecwatchd.images.prepare.prepare import ImageToPrepare, Prepared, prepare_image

FILES: dict[str, Content] = {
    "bin": Link("usr/bin"),  # the folders of a system since 2020
    "sbin": Link("usr/sbin"),
    "lib": Link("usr/lib"),
    "usr/sbin/init": Link("/lib/systemd/systemd"),
    "usr/lib/systemd/systemd": "",
    "usr/lib/systemd/system/serial-getty@.service": "",
    "usr/bin/wget": "",
    "etc/fstab": "",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/udev/rules.d/70-persistent-net.rules": 'SUBSYSTEM=="net", NAME="eth0"\n',
    "etc/rc.local": Link("rc.d/rc.local"),
    "etc/rc.d/rc.local": "#!/bin/sh -e\necho started\nexit 0\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n",
    "home/bob": None,
    **{f"etc/many/{number:04}-{'x' * 40}": "" for number in range(300)},
}
SIZE = 16 * MIB
CHANGES = [
    "/etc/rc.d/rc.local changed",
    "/etc/systemd/system/rc-local.service added",
    "/etc/systemd/system/multi-user.target.wants/rc-local.service linked",
    "/etc/udev/rules.d/70-persistent-net.rules removed",
    "/etc/machine-id emptied",
    "/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service linked",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("root"), FILES)


def prepare(image: Path, work: Path, result: Path | None = None) -> Prepared:
    """Prepare an image, and write what is read then to `result`."""
    work.mkdir(exist_ok=True)
    source = open_disk(FileIO(image), name=image.name).source
    with closing(source):
        prepared = prepare_image(ImageToPrepare(source, image.name), work)
        if result:
            empty(result, prepared.source.size)
            with result.open("r+b") as file:
                for extent in prepared.source.extents():
                    file.seek(extent.offset)
                    file.write(read_exactly(prepared.source, extent.offset, extent.length))
    assert list(work.iterdir()) == []
    return prepared


def debugfs(image: Path, command: str, *options: str) -> str:
    done = subprocess.run(
        ["/usr/sbin/debugfs", *options, "-R", command, image], capture_output=True, text=True, check=True
    )
    return done.stdout


def fingerprint(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return hashlib.sha256(path.read_bytes()).hexdigest(), status.st_mtime_ns, status.st_ctime_ns


def bare(image: Path) -> Path:
    return image


def in_mbr(image: Path) -> Path:
    return disk(
        image.with_suffix(".disk"), f"label: dos\n2048,{SIZE // 512},83,*\n", (1, image), size=SIZE + 2 * MIB
    )


def in_gpt(image: Path) -> Path:
    script = f"label: gpt\n2048,{SIZE // 512},{LINUX}\n"
    return disk(image.with_suffix(".disk"), script, (1, image), size=SIZE + 2 * MIB)


def in_qcow2(image: Path) -> Path:
    convert_compressed(in_mbr(image), image.with_suffix(".qcow2"))
    return image.with_suffix(".qcow2")


CASES: dict[str, tuple[tuple[str, ...], Callable[[Path], Path], int]] = {
    "ext2": (("ext2",), in_mbr, MIB),
    "ext3 with indirect blocks": (("ext3", "-b", "1024"), in_mbr, MIB),
    "ext4": (("ext4",), in_qcow2, MIB),
    "full groups": (("ext4", "-b", "1024", "-g", "2048", "-N", "640", "-O", "^flex_bg"), bare, 0),
    "small inodes": (("ext4", "-b", "1024", "-I", "128"), in_gpt, MIB),
    "inline data": (("ext4", "-O", "inline_data"), bare, 0),
    "bigalloc": (("ext4", "-b", "4096", "-C", "65536", "-N", "1024", "-O", "bigalloc"), in_qcow2, MIB),
    "64bit and metadata sums": (("ext4", "-b", "4096", "-O", "64bit,metadata_csum"), in_gpt, MIB),
    "meta groups": (("ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "8192"), bare, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_result_is_sound_and_the_file_untouched(name: str, folder: Path, tmp_path: Path) -> None:
    options, place, start = CASES[name]
    image = place(ext("-t", *options, size=SIZE)(tmp_path / "image", folder))
    before = fingerprint(image)
    prepared = prepare(image, tmp_path / "work", tmp_path / "whole")
    assert fingerprint(image) == before
    assert [f"{change.path} {change.word}" for change in prepared.changes] == CHANGES
    assert prepared.source.overlaid_bytes < MIB
    result = tmp_path / "whole"
    if start:
        result = tmp_path / "result"
        result.write_bytes((tmp_path / "whole").read_bytes()[start : start + SIZE])
    run("e2fsck", "-fn", result)
    script = debugfs(result, "cat /etc/rc.d/rc.local")
    assert script.startswith("#!/bin/sh -e\necho started\n# uecwatchd")
    assert script.endswith("&\nexit 0\n")
    assert "Mode:  0755" in debugfs(result, "stat /etc/rc.d/rc.local")
    assert "Size: 0" in debugfs(result, "stat /etc/machine-id")
    assert debugfs(result, "stat /etc/udev/rules.d/70-persistent-net.rules") == ""
    getty = debugfs(result, "stat /etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service")
    assert '"/usr/lib/systemd/system/serial-getty@.service"' in getty


def test_a_prepared_image_needs_no_preparation(folder: Path, tmp_path: Path) -> None:
    first = prepare(
        ext("-t", "ext4", size=SIZE)(tmp_path / "image", folder), tmp_path / "work", tmp_path / "result"
    )
    again = prepare(tmp_path / "result", tmp_path / "work")
    assert first.changes
    assert (again.changes, again.source.overlaid_bytes) == ((), 0)
    with closing(open_disk(FileIO(tmp_path / "result"), name="result").source) as source:
        keys = {finding.key for finding in inspect_image(source, name="result").findings}
    assert not keys & {"key-fetch", "net-rules", "machine-id", "console"}


def test_the_same_image_gives_the_same_bytes_at_another_time(folder: Path, tmp_path: Path) -> None:
    image = ext("-t", "ext4", "-O", "metadata_csum", size=SIZE)(tmp_path / "image", folder)
    prepare(image, tmp_path / "work", tmp_path / "first")
    made = int(time.time())
    until(lambda: int(time.time()) > made, "another time on the clock of the file system")
    prepare(image, tmp_path / "work", tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_labels_of_selinux_stay_and_new_files_get_that_of_their_folder(folder: Path, tmp_path: Path) -> None:
    image = ext("-t", "ext4", size=SIZE)(tmp_path / "image", fill(tmp_path / "root", FILES | {
        "etc/selinux/config": "SELINUX=enforcing\n"
    }))  # fmt: skip
    labels = {"/etc/systemd": "etc_t", "/etc/rc.d/rc.local": "initrc_t", "/etc": "etc_t"}
    debugfs(image, "mkdir /etc/systemd", "-w")
    for path, label in labels.items():
        debugfs(image, f"ea_set {path} {LABEL} {label}", "-w")
    prepare(image, tmp_path / "work", tmp_path / "result")
    run("e2fsck", "-fn", tmp_path / "result")
    for path, label in (
        ("/etc/rc.d/rc.local", "initrc_t"),
        ("/etc/machine-id", "etc_t"),
        ("/etc/systemd/system", "etc_t"),
        ("/etc/systemd/system/rc-local.service", "etc_t"),
        ("/etc/systemd/system/multi-user.target.wants/rc-local.service", "etc_t"),
    ):
        assert debugfs(tmp_path / "result", f"ea_get {path} {LABEL}").endswith(f' = "{label}"\n\n'), path


SPOILED = {
    "a journal to be replayed": ("feature needs_recovery", "its journal has changes that are not in it yet"),
    "not unmounted": ("ssv state 0", "it was not unmounted"),
    "errors": ("ssv state 3", "its kernel has found errors in it"),
    "half deleted files": ("ssv last_orphan 13", "it has files that are half deleted"),
    "quota": ("feature quota", "it has the feature quota"),
    "clean": ("ssv last_orphan 0", ""),
}


@pytest.mark.parametrize(("command", "problem"), SPOILED.values(), ids=SPOILED)
def test_the_superblock_tells_if_a_file_system_can_be_changed(
    tmp_path: Path, command: str, problem: str
) -> None:
    image = empty(tmp_path / "image", SIZE)
    run("mke2fs", "-q", "-F", "-t", "ext4", image)
    debugfs(image, command, "-w")
    with closing(FileSource(FileIO(image))) as source:
        found = read_ext_state(source)
    assert found.problem.startswith(problem)
    assert bool(found.problem) == bool(found.hint) == bool(problem)


REFUSED = {
    "not shut down": ("feature needs_recovery", "its journal has changes that are not in it yet"),
    "no free block": (f"setb 1 {SIZE // 1024 - 1}", "it is full: there is no free block, or no free inode"),
}


@pytest.mark.parametrize(("command", "why"), REFUSED.values(), ids=REFUSED)
def test_a_file_system_that_cannot_be_changed_is_refused(
    folder: Path, tmp_path: Path, command: str, why: str
) -> None:
    image = ext("-t", "ext3", "-b", "1024", size=SIZE)(tmp_path / "image", folder)
    debugfs(image, command, "-w")
    with pytest.raises(Rejected, match=why):
        prepare(image, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_file_system_without_free_inodes_is_refused(folder: Path, tmp_path: Path) -> None:
    image = ext("-t", "ext2", size=SIZE)(tmp_path / "image", folder)
    count = int(debugfs(image, "show_super_stats -h").split("Inode count:")[1].split()[0])
    commands = tmp_path / "commands"
    commands.write_text("".join(f"seti <{number}>\n" for number in range(12, count + 1)))
    run("debugfs", "-w", "-f", commands, image)
    with pytest.raises(Rejected, match="it is full"):
        prepare(image, tmp_path / "work")


def test_another_file_system_is_refused(folder: Path, tmp_path: Path) -> None:
    image = MAKERS["btrfs"](tmp_path / "image", folder)
    with pytest.raises(Rejected, match=r"its root is the disk \(btrfs\), and only ext2, ext3 and ext4"):
        prepare(image, tmp_path / "work")


def test_an_image_without_a_system_is_refused(tmp_path: Path) -> None:
    image = ext("-t", "ext4", size=SIZE)(
        tmp_path / "image", fill(tmp_path / "root", {"usr/bin/sh": "", "srv/x": ""})
    )
    with pytest.raises(Rejected, match="there is no Linux found in it"):
        prepare(image, tmp_path / "work")


def test_a_work_folder_that_is_gone_defers_the_set(folder: Path, tmp_path: Path) -> None:
    image = ext("-t", "ext4", size=SIZE)(tmp_path / "image", folder)
    source = open_disk(FileIO(image), name="image").source
    with closing(source), pytest.raises(Deferred, match=f"{tmp_path}/gone: cannot write a copy"):
        prepare_image(ImageToPrepare(source, "image"), tmp_path / "gone")


def test_a_missing_debugfs_names_its_package(folder: Path, tmp_path: Path) -> None:
    """Something that is no program hides debugfs, in a mount namespace of its own."""
    image = ext("-t", "ext4", size=SIZE)(tmp_path / "image", folder)
    debugfs = shutil.which("debugfs", path="/usr/sbin:/sbin")
    assert debugfs
    script = f'mount --bind /dev/null {debugfs} && exec "$@"'
    program = [sys.executable, "-c", PREPARES, str(image), str(tmp_path)]
    hidden = ["unshare", "--mount", "sh", "-c", script, "sh", *program]
    done = subprocess.run(hidden, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Try: apt-get install e2fsprogs"


PREPARES = """
import sys
from io import FileIO
from pathlib import Path
from uecwatchd.errors import Deferred
from uecwatchd.images.formats.open import open_disk
from uecwatchd.images.prepare.prepare import ImageToPrepare, prepare_image
image, work = sys.argv[1:]
try:
    prepare_image(ImageToPrepare(open_disk(FileIO(image), name=image).source, image), Path(work))
except Deferred as error:
    print(error.hint)
"""
