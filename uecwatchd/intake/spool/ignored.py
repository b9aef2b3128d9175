"""Ignored names: unfinished files, files that were set aside, and files of the system.

Names are compared without regard to case, because the programs that make them differ in it. The lists are
from download tools, editors, package managers, sync clients, NAS devices and desktops, as they leave such
files in shared folders.
"""

import fnmatch
import re
from collections.abc import Sequence

from uecwatchd.images import file_names
from uecwatchd.intake.spool.archive import ARCHIVE
from uecwatchd.intake.spool.output_files import OUTPUT_SUFFIXES, is_output

# Suffixes of files that are still arriving, and of control files that tools keep beside them.
UNFINISHED = (
    *(".part", ".partial", ".filepart", ".incomplete", ".unfinished", ".tmp", ".temp"),
    *(".crdownload", ".download", ".opdownload", ".fdmdownload", ".drivedownload", ".dltemp"),  # browsers
    *(".aria2", ".aria2__temp", ".st", ".lftp-pget-status", ".upload", ".uploading", ".resume"),
    *(".!ut", ".!qb", ".!bt", ".bc!", ".jc!", ".bts", ".!sync", ".td", ".xltd", ".ytdl", ".getright"),
    *(".qsync_tmp", ".synctmp", ".gstmp", "_.gstmp"),
)
SET_ASIDE = (
    *(".bak", ".backup", ".bkp", ".bk", ".orig", ".old", ".save", ".saved", ".rej", ".deleted", ".disabled"),
    *(".rpmsave", ".rpmnew", ".rpmorig", ".pacnew", ".pacsave", ".pacorig", ".apk-new", ".zs-old"),
    *(".swp", ".swo", ".swx", ".crswap", ".lock", ".lck", ".autosave"),
)
ENDINGS = frozenset((*UNFINISHED, *SET_ASIDE))

SYSTEM_NAMES = frozenset(
    (
        *("lost+found", "lost&found", "__macosx", "@eadir", "#recycle", "#snapshot", "~snapshot", "@tmp"),
        *("@recycle", "@recently-snapshot", "@sharesnap", "$recycle.bin", "recycler", "recycled"),
        *("recycle.bin", "recycle bin", "recyclebin", "network recycle bin", "trash", "trashbox", "trashcan"),
        *("network trash folder", "temporary items", "thevolumesettingsfolder", "thefindbycontentfolder"),
        *("system volume information", "config.msi", "msocache", "desktop.ini", "thumbs.db", "ehthumbs.db"),
        *("desktop db", "desktop df", "icon\r", "aquota.user", "aquota.group", "quota.user", "quota.group"),
    )
)

# Names that a suffix alone does not identify.
PATTERNS = (
    ".*",  # hidden: rsync, editors, desktops, and our own temporary files
    "*~",
    "~$*",  # office programs
    "#*#",  # Emacs
    "found.[0-9][0-9][0-9]",  # chkdsk
    "trash-[0-9]*",
    "*.dpkg-*",
    "*.ucf-*",
    "*.bak[-_.0-9]*",
    "*.old[-_.0-9]*",
    "*.orig[-_.0-9]*",
    "*.save[-_.0-9]*",
    "*.lftp~*",
    "~syncthing~*",
    "*.sync-conflict-*",
    "*_conflict-[0-9]*",  # ownCloud, Nextcloud
    "*conflicted copy*",  # Dropbox, Nextcloud
    "* (case conflict*)*",
)
# Names of folders without punctuation, which differs between devices. NAS devices add the name of the share
# or of the user, or a number, to the name of a recycle bin. Such a word may also be alone, or with similar
# words.
SYSTEM_FOLDERS = re.compile(
    r".*recyclebin.*|.*trash(?:box|can|folder).*"
    r"|papierkorb|corbeille|cestino|lixeira|papelera.*|prullenbak"
    r"|(?=.*(?:recycle|trash|deleted))(?:recycle[dr]?|trash(?:e[ds])?|deleted|recently|bin|files?|items?|folders?)+\d*"
    r"|snapshots?|previousversions?"
)
# Devices and systems put such a character before the names of their own folders.
SYSTEM_SIGNS = ("@", "#", "$", "~")

_ANY_PATTERN = re.compile("|".join(map(fnmatch.translate, PATTERNS)), re.DOTALL)


def ignored_by(name: str, patterns: Sequence[str] = (), *, is_folder: bool = False) -> str | None:
    """Return the pattern that ignores a name, or None. `patterns` are those of the configuration."""
    plain = file_names.fold_name(name)
    if is_output(plain):
        return next(f"*{suffix}" for suffix in OUTPUT_SUFFIXES if plain.endswith(suffix))
    if name == ARCHIVE:  # the folder of finished sets with `after = "archive"`
        return ARCHIVE
    if built_in := _built_in(plain, is_folder=is_folder):
        return built_in
    return next((pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)), None)


def _built_in(plain: str, *, is_folder: bool) -> str | None:
    if _ANY_PATTERN.match(plain):
        return next(pattern for pattern in PATTERNS if fnmatch.fnmatchcase(plain, pattern))
    if ending := ending_of(plain, ENDINGS):
        return f"*{ending}"
    if plain in SYSTEM_NAMES:
        return plain
    if is_folder and SYSTEM_FOLDERS.fullmatch(re.sub(r"[\W_]", "", plain)):
        return plain
    return f"{plain[0]}*" if is_folder and plain.startswith(SYSTEM_SIGNS) else None


def ending_of(plain: str, endings: frozenset[str]) -> str | None:
    """Return the suffix of a folded name, from its last dot on, if it is one of `endings`."""
    ending = plain[plain.rfind(".") :] if "." in plain else ""
    return ending if ending in endings else None
