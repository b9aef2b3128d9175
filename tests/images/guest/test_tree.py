"""Links, mount points and fstab lines of a guest."""

from pathlib import Path

import pytest

from tests.support.folder_files import FolderFiles
from tests.support.guest_images import Content, Link, content_of, fill
from uecwatchd.images.guest.fstab import FstabLine, PlacedVolume, is_meant, parse_fstab
from uecwatchd.images.guest.tree import GuestTree
from uecwatchd.images.guest.volumes import Volume
from uecwatchd.images.partitions import Partition

FILES: dict[str, Content] = {
    "etc/os-release": Link("../usr/lib/os-release"),
    "usr/lib/os-release": "ID=debian",
    "lib": Link("usr/lib"),
    "out": Link("../../../../../../etc/os-release"),
    "absolute": Link("/lib/../lib/./os-release"),
    "circle": Link("circle"),
    "broken": Link("nowhere"),
    "empty": "",
    "through": Link("etc/os-release/more"),
    "boot/on-root": "hidden by a mount",
    "vmlinuz": Link("boot/vmlinuz-6.1"),
}


@pytest.fixture
def tree(tmp_path: Path) -> GuestTree:
    boot = fill(tmp_path / "boot", {"vmlinuz-6.1": "kernel", "up": Link("../etc/os-release")})
    root = fill(tmp_path / "root", FILES)
    return GuestTree({"/": FolderFiles(root), "/boot": FolderFiles(boot)})


@pytest.mark.parametrize(
    "path",
    [
        "/etc/os-release",
        "etc/os-release",
        "/lib/os-release",
        "/out",
        "/absolute",
        "//etc/./os-release",
        "/boot/up",
    ],
)
def test_links_are_followed_inside_the_guest(tree: GuestTree, path: str) -> None:
    found = tree.find(path)
    assert found
    assert found.path == "/usr/lib/os-release"
    assert tree.text(path) == "ID=debian"


@pytest.mark.parametrize(
    "path", ["/circle", "/broken", "/nonesuch", "/etc/os-release/x", "/through", "/nonesuch/../etc"]
)
def test_a_link_to_nothing_is_nothing(tree: GuestTree, path: str) -> None:
    assert tree.find(path) is None
    assert tree.text(path) == ""
    assert tree.names(path) == ()


def test_a_mounted_file_system_hides_what_is_below_it(tree: GuestTree) -> None:
    assert tree.names("/boot") == ("up", "vmlinuz-6.1")
    assert tree.text("/vmlinuz") == "kernel"
    found = tree.find("/vmlinuz")
    assert found
    assert (found.path, found.inner_path) == ("/boot/vmlinuz-6.1", "/vmlinuz-6.1")
    assert content_of(found) == b"kernel"


def test_a_path_above_the_root_is_the_root(tree: GuestTree) -> None:
    found = tree.find("/../..")
    assert found
    assert (found.path, found.entry.type) == ("/", "folder")


# --- fstab ------------------------------------------------------------------------------------------------

FSTAB = """\
# <file system> <mount point> <type> <options>
UUID=CAFE /    ext4 errors=remount-ro,noatime 0 1

LABEL="data"\t/srv/my\\040data auto
/dev/sda5 none swap sw 0 0
lonely
"""


def test_an_fstab_is_read_as_mount_reads_it() -> None:
    assert parse_fstab(FSTAB) == (
        FstabLine("UUID=CAFE", "/", "ext4", ("errors=remount-ro", "noatime")),
        FstabLine("LABEL=data", "/srv/my data", "auto", ("defaults",)),
        FstabLine("/dev/sda5", "none", "swap", ("sw",)),
    )


PARTITION = Partition(3, 0, 1, "83", is_bootable=False, name="root", uuid="cafebabe-03")
VOLUME = Volume("ext4", 1, "dead-beef", "data", "", "", None)
LOGICAL = Volume("ext4", 1, "dead-beef", "", "vg-0/root", "", None)


@pytest.mark.parametrize(
    ("device", "placed", "expected"),
    [
        ("UUID=DEAD-BEEF", PlacedVolume(VOLUME, PARTITION), True),
        ("UUID=", PlacedVolume(VOLUME, PARTITION), False),
        ("LABEL=data", PlacedVolume(VOLUME, PARTITION), True),
        ("LABEL=", PlacedVolume(LOGICAL, PARTITION), False),
        ("PARTUUID=cafebabe-03", PlacedVolume(VOLUME, PARTITION), True),
        ("PARTLABEL=root", PlacedVolume(VOLUME, PARTITION), True),
        ("PARTLABEL=root", PlacedVolume(VOLUME, None), False),
        ("/dev/sda3", PlacedVolume(VOLUME, PARTITION), True),
        ("/dev/xvda3", PlacedVolume(VOLUME, PARTITION), True),
        ("/dev/nvme0n1p3", PlacedVolume(VOLUME, PARTITION), True),
        ("/dev/sda13", PlacedVolume(VOLUME, PARTITION), False),
        ("/dev/vda", PlacedVolume(VOLUME, None), True),
        ("/dev/vda1", PlacedVolume(VOLUME, None), True),
        ("/dev/vda2", PlacedVolume(VOLUME, None), False),
        ("/dev/disk/by-uuid/dead-beef", PlacedVolume(VOLUME, PARTITION), True),
        ("/dev/disk/by-label/other", PlacedVolume(VOLUME, PARTITION), False),
        ("/dev/mapper/vg--0-root", PlacedVolume(LOGICAL, PARTITION), True),
        ("/dev/vg-0/root", PlacedVolume(LOGICAL, PARTITION), True),
        ("/dev/vda3", PlacedVolume(LOGICAL, PARTITION), False),
        ("tmpfs", PlacedVolume(VOLUME, PARTITION), False),
    ],
)
def test_a_device_of_an_fstab_is_found_on_the_disk(
    device: str, placed: PlacedVolume, *, expected: bool
) -> None:
    assert is_meant(device, placed) == expected
