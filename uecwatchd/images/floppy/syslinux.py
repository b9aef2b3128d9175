"""The files of syslinux on this host: memdisk, and the modules that start NTLDR from a floppy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from uecwatchd.errors import Deferred

PACKAGE = "syslinux-common"  # Debian's package for all of them
MEMDISK_PLACES = (
    Path("/usr/lib/syslinux/memdisk"),  # Debian and Ubuntu
    Path("/usr/share/syslinux/memdisk"),  # Fedora and its relatives
    Path("/usr/lib/syslinux/bios/memdisk"),  # Arch
)
MODULE_FOLDERS = (
    Path("/usr/lib/syslinux/modules/bios"),
    Path("/usr/share/syslinux"),
    Path("/usr/lib/syslinux/bios"),
)
# chain.c32 starts another boot loader; the libraries are those that it is linked to.
MODULES = ("chain.c32", "libcom32.c32", "libutil.c32")
CONFIGURATION_NAME = "syslinux.cfg"
# Each line is a command of syslinux. `fd0` becomes the boot drive that NTLDR finds in DL.
CONFIGURATION = b"DEFAULT ntldr\nLABEL ntldr\nCOM32 chain.c32\nAPPEND fd0 ntldr=/NTLDR\n"
LOADER_NAMES = ("ldlinux.sys", "ldlinux.c32")  # written by `syslinux --install`


def find_memdisk(places: Sequence[Path] = MEMDISK_PLACES) -> Path:
    """Return the memdisk of this host, which is the kernel of a Windows set without one.

    Raises Deferred, with the package, if there is none.
    """
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise Deferred(
            "memdisk",
            f"Windows needs it as its kernel, and it is not at {_either(places)}",
            f"Try: apt-get install {PACKAGE}; or drop a memdisk with the set.",
        )
    return found


def read_modules(folders: Sequence[Path] = MODULE_FOLDERS) -> Mapping[str, bytes]:
    """Return the modules by name, all of one folder, because modules of two versions do not go together.

    Raises Deferred, with the package, if no folder has all.
    """
    for folder in folders:
        if all((folder / name).is_file() for name in MODULES):
            return {name: read_file(folder / name) for name in MODULES}
    raise Deferred(
        ", ".join(MODULES),
        f"a boot floppy for Windows needs these modules, and they are not in {_either(folders)}",
        f"Try: apt-get install {PACKAGE}",
    )


def read_file(path: Path) -> bytes:
    """Return the content of a file of syslinux. Raises Deferred if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        why = f"cannot read it: {error.strerror or error}"
        raise Deferred(str(path), why, f"Try: apt-get install --reinstall {PACKAGE}") from error


def _either(places: Sequence[Path]) -> str:
    return " or ".join(map(str, places))
