"""Names that are passed over: what is unfinished, what was set aside, and what a system keeps for itself.

Names are compared without regard to case, since the systems that make them do not agree on it.
The lists hold what download tools, editors, package managers, sync clients, NAS boxes and desktops are known
to leave in folders that people share.
"""

import fnmatch
import re
from collections.abc import Sequence

from uecwatchd.images import file_names
from uecwatchd.intake.spool.archive import ARCHIVE
from uecwatchd.intake.spool.output_files import OUTPUT_SUFFIXES, is_output

# Endings of a file that is still arriving, and of the note that a tool keeps beside it meanwhile.
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

# What an ending alone does not tell.
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
# Names of folders without their signs, which differ from box to box. NAS boxes add the share's name, its
# user's, or a number to a bin's; a word for it may also stand alone, or with others of the kind.
SYSTEM_FOLDERS = re.compile(
    r".*recyclebin.*|.*trash(?:box|can|folder).*"
    r"|papierkorb|corbeille|cestino|lixeira|papelera.*|prullenbak"
    r"|(?=.*(?:recycle|trash|deleted))(?:recycle[dr]?|trash(?:e[ds])?|deleted|recently|bin|files?|items?|folders?)+\d*"
    r"|snapshots?|previousversions?"
)
# Boxes and systems put such a character before the folders that they keep for themselves.
SYSTEM_SIGNS = ("@", "#", "$", "~")

_ANY_PATTERN = re.compile("|".join(map(fnmatch.translate, PATTERNS)), re.DOTALL)


def ignored_by(name: str, patterns: Sequence[str] = (), *, is_folder: bool = False) -> str | None:
    """Return the pattern because of which a name is passed over, or None. `patterns` are the user's."""
    plain = file_names.folded(name)
    if is_output(plain):
        return next(f"*{suffix}" for suffix in OUTPUT_SUFFIXES if plain.endswith(suffix))
    if name == ARCHIVE:  # where finished sets go when the configuration says `after = "archive"`
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
    """Return which of the endings a folded name has, from its last dot on."""
    ending = plain[plain.rfind(".") :] if "." in plain else ""
    return ending if ending in endings else None
