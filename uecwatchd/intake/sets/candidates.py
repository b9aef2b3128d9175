"""Candidates for sets: files of a listing that may belong together, before anything is decided about them."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from posixpath import basename

from uecwatchd.errors import UecError
from uecwatchd.images import file_names
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.published import boot_files, images_of
from uecwatchd.intake.sets.records import Form
from uecwatchd.intake.sidecar import ForeignDocument, Sidecar, is_image_id
from uecwatchd.intake.spool.boot_folders import boot_folder_of, set_beside
from uecwatchd.intake.spool.file_kinds import CHECKSUM_SUFFIXES, SIDECAR_SUFFIXES, is_sidecar, is_sums
from uecwatchd.intake.spool.scan import Entry, Listing
from uecwatchd.types import FileStamp, Role

DISK_SUFFIXES = (
    *(".img", ".raw", ".image", ".disk", ".ami", ".emi-image", ".ext2", ".ext3", ".ext4", ".iso", ".bin"),
    *(".qcow2", ".qcow", ".vmdk", ".vhd", ".vhdx", ".vdi"),
)
# A stem is a name without one of these suffixes. Any other suffix belongs to the name: "ubuntu-9.10".
MEMBER_SUFFIXES = (
    *DISK_SUFFIXES,
    *(".vmlinuz", ".vmlinux", ".kernel", ".bzimage"),
    *(".initrd", ".initramfs", ".ramdisk", ".cpio"),
)
# An archive with the files of a set. Other archives are not unpacked: `compressed` has them.
TAR_SUFFIXES = (
    *(".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"),
    *(".tgz", ".tbz", ".tbz2", ".txz", ".tzst"),
)
# A disk may be compressed: then this follows its suffix, or a name without one.
PACKED_SUFFIXES = (".gz", ".xz", ".zst", ".bz2")
# The name of a copy that was set aside, or is not complete, continues after it: "web.raw.old",
# "web.img-journal".
_MORE_BEHIND = re.compile(rf"(?:{'|'.join(map(re.escape, MEMBER_SUFFIXES))})([\W_].*)")
_ROOT_FILES = re.compile(r"(?:^|[-_.])root(?:[-_.]?fs)?$")
# A set, because each scan asks for the suffix of each name several times.
SUFFIXES = frozenset((*MEMBER_SUFFIXES, *TAR_SUFFIXES, *SIDECAR_SUFFIXES, *CHECKSUM_SUFFIXES))
# Names of kernel files that belong to no particular image: they never form a stem.
LOOSE_PREFIXES = ("vmlinuz", "vmlinux", "initrd", "initramfs", "memdisk")
# The same, unless they have a suffix of a member: kernel-genkernel-x86_64-5.4.0-gentoo.
LOOSE_WITHOUT_SUFFIX = ("kernel-", "bzimage-", "ramdisk-")
FOLDER_SIDECARS = ("image.toml", "image.json")

# The names of the sets whose sidecars name a file, by the file's path.
Claims = Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class SetCandidate:
    """Files that may form one set, before anything is decided. Paths are relative to the spool folder.

    Those out of an archive begin with the path of the archive, which is then their `base`.
    `shared_boot_files` are those that other images of the same system may use too.
    """

    name: str
    form: Form
    base: str  # "" or "karmic/": the folder of the files
    sidecars: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    shared_boot_files: frozenset[str] = frozenset()


def stem_of(name: str) -> str:
    """Return the name of the set that a file belongs to by its stem."""
    name = unpacked_name(name) or name
    last = name.rfind(".")
    for dot in (last, name.rfind(".", 0, max(last, 0))):  # no suffix has more than two
        if dot > 0 and name[dot:].lower() in SUFFIXES:
            return name[:dot]
    return name


def unpacked_name(name: str) -> str | None:
    """Return the name of the disk that a compressed file is by its name; None for other names."""
    if not name.lower().endswith(PACKED_SUFFIXES):
        return None
    plain = name.rpartition(".")[0]
    is_disk = plain.lower().endswith(DISK_SUFFIXES) or "." not in plain
    return plain if plain and is_disk and not is_loose(name) else None


def key_of(name: str) -> str:
    """Return the common key of all files of one set, for any spelling of the stem."""
    return file_names.fold_name(stem_of(name))


def find_candidates(listing: Listing) -> list[SetCandidate]:
    """Return all possible sets in a folder, each name once, sorted by name."""
    sidecars: dict[str, list[str]] = {}
    stems: dict[str, list[str]] = {}
    folders: dict[str, list[str]] = {}
    archives: dict[str, list[str]] = {}
    for entry in _sort_by_name(listing.top()):
        if is_sidecar(entry.name):  # of any kind: if it is not a file, it is refused, not ignored
            sidecars.setdefault(key_of(entry.name), []).append(entry.name)
        elif is_set_folder(entry):
            folders.setdefault(file_names.fold_name(entry.name), []).append(entry.name)
        elif is_archive(entry.name):
            archives.setdefault(key_of(entry.name), []).append(entry.name)
        elif _may_be_member(listing, entry):
            stems.setdefault(key_of(entry.name), []).append(entry.name)
    shared_boot_files = _add_boot_files(listing, sidecars, stems)
    inside: dict[str, list[str]] = {name: [] for names in folders.values() for name in names}
    for path in sorted(listing.entries):  # once for all of them: there may be thousands
        folder, slash, _ = path.partition("/")
        if slash and folder in inside:
            inside[folder].append(path)
    found: list[SetCandidate] = []
    for key in archives.keys() - stems.keys() - folders.keys():  # others are there unpacked
        own = _without_foreign(listing, sidecars.get(key, []))
        if not _names_image(listing, own):
            name = stem_of(archives[key][0])
            found.append(SetCandidate(name, "archive", "", tuple(own), tuple(archives[key])))
            sidecars.pop(key, None)
    for key in {*sidecars, *stems, *folders}:
        paths = (_without_foreign(listing, sidecars.get(key, [])), stems.get(key, []), folders.get(key, []))
        candidates = _candidates_with_key(listing, key, *paths, inside=inside)
        found += [
            replace(candidate, shared_boot_files=frozenset(shared_boot_files.get(key, ())))
            for candidate in candidates
        ]
    return sorted(found, key=lambda candidate: candidate.name)


def _add_boot_files(
    listing: Listing, sidecars: Mapping[str, list[str]], stems: dict[str, list[str]]
) -> dict[str, list[str]]:
    """Add published kernels and ramdisks to the stems of their images; returns the shared ones by stem."""
    shared_boot_files: dict[str, list[str]] = {}
    with_image = {
        stem for stem, paths in stems.items() if any(role_of(listing, p) in ("machine", None) for p in paths)
    }
    images = images_of({*with_image, *sidecars})
    for path in boot_files(listing, [entry.name for entry in _sort_by_name(listing.top())]):
        owners, is_common = images.sets_of(path)
        stem = key_of(path)
        if not owners or stem in owners or stem in images.names:
            continue
        if path in stems.get(stem, ()):
            stems[stem].remove(path)
        for owner in owners:
            stems.setdefault(owner, []).append(path)
            if is_common:
                shared_boot_files.setdefault(owner, []).append(path)
    for stem in [stem for stem, paths in stems.items() if not paths]:
        del stems[stem]
    return shared_boot_files


def set_keys(listing: Listing) -> Mapping[str, str]:
    """Return the key of its set for each path; loose kernels have none."""
    folders = {entry.name for entry in listing.top() if is_set_folder(entry)}
    keys: dict[str, str] = {}
    for path, entry in listing.entries.items():
        top, slash, _ = path.partition("/")
        if top in folders:
            keys[path] = file_names.fold_name(top)
        elif not slash and (key := _set_key(listing, entry)):
            keys[path] = key
    return keys


def boot_file_key(path: str) -> str:
    """Return the key of the set that a file in a folder of boot files is for."""
    folder = boot_folder_of(path) or path
    beside = set_beside(folder)
    return file_names.fold_name(folder.partition("/")[0]) if beside is None else key_of(beside)


def _set_key(listing: Listing, entry: Entry) -> str:
    if is_sums(entry.name):
        return key_of(file_names.checksums_target(entry.name) or "")
    if is_sidecar(entry.name):
        return "" if isinstance(listing.sidecars.get(entry.name), ForeignDocument) else key_of(entry.name)
    return key_of(entry.name) if is_archive(entry.name) or _may_be_member(listing, entry) else ""


def _sort_by_name(entries: Iterable[Entry]) -> list[Entry]:
    """Sort entries by name, so that messages about several files stay the same at each scan."""
    return sorted(entries, key=lambda entry: entry.name)


def is_set_folder(entry: Entry) -> bool:
    """Return True for a folder, unless it has the name of a file that could be in a set."""
    name = entry.name
    named_like_a_file = looks_like_a_member(name) or is_sidecar(name) or is_sums(name)
    return entry.kind == "folder" and not named_like_a_file


def _without_foreign(listing: Listing, sidecars: list[str]) -> list[str]:
    """Leave out documents of other programs if the set has its own sidecar."""
    own = [path for path in sidecars if not isinstance(listing.sidecars.get(path), ForeignDocument)]
    return own or sidecars


def _candidates_with_key(
    listing: Listing,
    key: str,
    sidecars: list[str],
    stems: list[str],
    folders: list[str],
    *,
    inside: Mapping[str, list[str]],
) -> list[SetCandidate]:
    """Return the candidates from files and folders with one stem; `inside` are the paths in each folder."""
    if not sidecars and not stems:
        return [_folder_candidate(listing, name, inside[name]) for name in folders]
    # A folder beside files with its name is ambiguous; it is among the paths so that this can be reported.
    own = [path for path in sidecars if not isinstance(listing.sidecars.get(path), ForeignDocument)]
    name = stem_of(next(path for path in (*own, *stems, *sidecars) if key_of(path) == key))
    form: Form = "sidecar" if sidecars else "stem"
    return [SetCandidate(name, form, "", tuple(sidecars), (*stems, *folders))]


def _folder_candidate(listing: Listing, name: str, inside: list[str]) -> SetCandidate:
    own = [path for path in inside if file_names.fold_name(basename(path)) in FOLDER_SIDECARS]
    own = _without_foreign(listing, own)
    return SetCandidate(
        name, "folder", f"{name}/", tuple(own), tuple(path for path in inside if path not in own)
    )


def _names_image(listing: Listing, sidecars: Iterable[str]) -> bool:
    """Return True if a sidecar names an image beside it: then it is not about an archive."""
    found = [listing.sidecars.get(path) for path in sidecars]
    return any(one.machine in listing.entries for one in found if isinstance(one, Sidecar) and one.machine)


def is_archive(path: str) -> bool:
    """Return True for the name of an archive with a set; in a set's folder it has none.

    Distributions publish the root file system of an image as an archive beside it: `trusty-root.tar.gz`.
    """
    plain = file_names.fold_name(path)
    is_tar = "/" not in path and plain.endswith(TAR_SUFFIXES)
    return is_tar and not _ROOT_FILES.search(stem_of(plain))


def looks_like_a_member(name: str) -> bool:
    plain = file_names.fold_name(name)
    packed = unpacked_name(plain) or ""
    return plain.endswith(MEMBER_SUFFIXES) or packed.endswith(DISK_SUFFIXES) or is_loose(name)


def is_loose(name: str) -> bool:
    lower = name.lower()
    bare = lower.startswith(LOOSE_WITHOUT_SUFFIX) and not lower.endswith(MEMBER_SUFFIXES)
    return bare or lower.startswith(LOOSE_PREFIXES)


def _may_be_member(listing: Listing, entry: Entry) -> bool:
    """Return True for a file with the name of a member, or with the content of one."""
    if is_loose(entry.name) or lies_unpacked(listing, entry.name):
        return False
    if looks_like_a_member(entry.name):
        return True
    content = listing.facts.get(entry.name)
    return isinstance(content, Facts) and content.role == "machine" and not set_aside(entry.name)


def lies_unpacked(listing: Listing, path: str) -> bool:
    """Return True for a compressed disk that is there unpacked too: that one is taken."""
    folder, slash, name = path.rpartition("/")
    plain = unpacked_name(name)
    return plain is not None and folder + slash + plain in listing.entries


def set_aside(name: str) -> str | None:
    """Return the text after the suffix of an image in a name: `.old` in web.raw.old.

    A file with such a name is not an image, whatever its content.
    """
    if looks_like_a_member(name):
        return None
    found = _MORE_BEHIND.search(file_names.fold_name(name))
    return found[1] if found else None


def find_claims(
    listing: Listing,
    candidates: Iterable[SetCandidate],
    taken: Mapping[str, Collection[tuple[str, FileStamp]]],
) -> Claims:
    """Return the files that sidecars name, with the sets: such a file is in no other set by its stem.

    A sidecar that names no image now, for example while it is being saved, keeps those of its finished set:
    `taken`, by name of the set.
    """
    claims: dict[str, set[str]] = {}
    for candidate in candidates:
        sidecars = [listing.sidecars.get(path) for path in candidate.sidecars]
        read = [found for found in sidecars if isinstance(found, Sidecar)]
        # The base of an installation is not in the list: mostly it is the image of a set of its own.
        paths = [candidate.base + name for found in read for name in all_named_files(found, base=False)]
        if sidecars and not any(found.machine for found in read):
            made = taken.get(candidate.name, ())
            paths += [p for p, stamp in made if p in listing.entries and listing.stamp(p) == stamp]
        for path in paths:
            claims.setdefault(path, set()).add(candidate.name)
    return claims


def named_files(sidecar: Sidecar) -> Mapping[Role, str]:
    """Return the files that a sidecar names, by role."""
    named: dict[Role, str] = {}
    if sidecar.machine:
        named["machine"] = sidecar.machine
    for role, value in (("kernel", sidecar.kernel), ("ramdisk", sidecar.ramdisk)):
        if value and value not in ("none", "from-image") and not is_image_id(value):
            named["kernel" if role == "kernel" else "ramdisk"] = value
    return named


def all_named_files(sidecar: Sidecar, *, base: bool = True) -> list[str]:
    """Return the files that a sidecar names, by role or in its recipe; maybe without its base."""
    recipe = sidecar.install.files if sidecar.install else {}
    return [*named_files(sidecar).values(), *(name for key, name in recipe.items() if base or key != "base")]


def is_recipe(listing: Listing, candidate: SetCandidate) -> bool:
    """Return True if the sidecar of a candidate says how its system is installed."""
    sidecars = (listing.sidecars.get(path) for path in candidate.sidecars)
    return any(isinstance(found, Sidecar) and found.install for found in sidecars)


def own_paths(listing: Listing, candidate: SetCandidate, claims: Claims) -> list[str]:
    """Return the files of a candidate: those it names, and those by stem or folder that no other names."""
    own = [
        p
        for p in candidate.paths
        if candidate.name in claims.get(p, (candidate.name,)) and not _is_copy(listing, p)
    ]
    sidecars = (listing.sidecars.get(path) for path in candidate.sidecars)
    names = [name for found in sidecars if isinstance(found, Sidecar) for name in all_named_files(found)]
    named = [candidate.base + name for name in names if candidate.base + name in listing.entries]
    return list(dict.fromkeys([*own, *named]))


def _is_copy(listing: Listing, path: str) -> bool:
    """Return True for a machine image that was set aside by name, or is there in another form."""
    if is_archive(path) or role_of(listing, path) != "machine":
        return False
    return set_aside(basename(path)) is not None or lies_unpacked(listing, path)


def role_of(listing: Listing, path: str) -> Role | None:
    """Return the role of a file, by its content and its name. An archive has that of its image."""
    if is_archive(path):
        return "machine"
    content = listing.facts.get(path)
    by_name = file_names.role_by_name(basename(path))
    if isinstance(content, Facts):
        return content.role or by_name
    return by_name if isinstance(content, UecError) else None
