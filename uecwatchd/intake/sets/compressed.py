"""Archives, and images in other compressions, with the commands that unpack them."""

from collections.abc import Mapping
from posixpath import basename
from types import MappingProxyType

from uecwatchd.images import file_names
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.candidates import MEMBER_SUFFIXES, PACKED_SUFFIXES, is_archive, stem_of
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.system.text import file_word

# Commands write beside the file, and keep it: {name} is the file, {folder} its folder, {to} the rest of its
# name.
COMPRESSIONS: Mapping[str, str] = MappingProxyType(
    {
        ".gz": "gzip",
        ".xz": "xz",
        ".lzma": "xz",
        ".bz2": "bzip2",
        ".zst": "zstd",
        ".lz4": "lz4",
        ".lzo": "lzop",
        ".br": "brotli",
    }
)
_TAR = "tar -xf {name}{into}"
ARCHIVES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys((".tar", ".tgz", ".txz", ".tbz", ".tbz2", ".tzst", ".tlz"), _TAR),
        **{f".tar{ending}": _TAR for ending in (".gz", ".xz", ".lzma", ".bz2", ".zst", ".lzo", ".z")},
        ".tar.lz4": "lz4 -dc < {name} | tar -x{into}",
        ".ova": _TAR,
        ".box": _TAR,
        ".zip": "unzip {name}{unzip}",
        ".7z": "7z x {name}{seven}",
        ".rar": "unrar x {name}",
    }
)
# Exports of other programs, and how to make a disk from them.
EXPORTS: Mapping[str, str] = MappingProxyType(
    {
        ".xva": "a machine exported by Xen's toolstack is not taken as it is: export its disk as a VHD",
        ".wim": "Windows files are no disk: apply them to one with wimlib-imagex, and drop that",
        ".dmg": "a disk of macOS is not taken as it is: make it raw with qemu-img convert -f dmg",
    }
)
_CONTENTS: Mapping[str, str] = MappingProxyType({"tar": _TAR, "zip": ARCHIVES[".zip"]})


def reason_packed(listing: Listing, path: str) -> tuple[str, bool] | None:
    """Return how to unpack a file outside sets, and if that is still to be done; else None."""
    plain = file_names.fold_name(path)
    if export := next((end for end in EXPORTS if plain.endswith(end)), None):
        return EXPORTS[export], True
    archive = max((end for end in ARCHIVES if plain.endswith(end)), key=len, default=None)
    compression = next((end for end in COMPRESSIONS if plain.endswith(end)), None)
    content = listing.facts.get(path)
    if is_archive(path):
        return f"not unpacked: the set {stem_of(path)} has other files", False
    by_content = _CONTENTS.get(content.format) if isinstance(content, Facts) else None
    if command := ARCHIVES[archive] if archive else by_content:
        return f"an archive is not taken as it is. Try: {_filled(command, path)}", True
    if compression is None or not _names_image(plain.removesuffix(compression)):
        return None
    to = path[: -len(compression)]
    if to in listing.entries:
        return f"{to} is there unpacked", False
    if compression in PACKED_SUFFIXES:  # it would be in a set if it were a disk
        return None
    command = f"{COMPRESSIONS[compression]} -dc < {file_word(path)} > {file_word(to)}"
    return f"an image in this compression is not taken as it is. Try: {command}", True


def _names_image(plain: str) -> bool:
    """Return True if the rest of a folded name has the suffix of an image, or no suffix."""
    name = basename(plain)
    return name.endswith(MEMBER_SUFFIXES) or "." not in name


def _filled(command: str, path: str) -> str:
    folder = file_word(path.rpartition("/")[0])
    inside = "/" in path
    return command.format(
        name=file_word(path),
        into=f" -C {folder}" if inside else "",
        unzip=f" -d {folder}" if inside else "",
        seven=f" -o{folder}" if inside else "",
    )
