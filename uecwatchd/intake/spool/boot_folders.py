"""Names of folders with the boot files of a Windows set, of which its boot floppy is made.

Such a folder is `bootfiles/` in the folder of a set, or `NAME-bootfiles/` beside the files of the set NAME.
"""

import re

_INNER = re.compile(r"[^/]+/bootfiles", re.IGNORECASE)
_BESIDE = re.compile(r"(?:(?P<set>[^/]+)[-.])?bootfiles", re.IGNORECASE)
_BEGINNING = re.compile(rf"(?:{_BESIDE.pattern}|{_INNER.pattern})(?=/|$)", re.IGNORECASE)


def boot_folder_of(path: str) -> str | None:
    """Return the folder of boot files of a path, by its name; None without one."""
    found = _BEGINNING.match(path)
    return found[0] if found else None


def is_boot_folder(path: str) -> bool:
    return boot_folder_of(path) == path


def set_beside(folder: str) -> str | None:
    """Return the name of the set beside a folder of boot files; None for one in a set's folder."""
    found = _BESIDE.fullmatch(folder)
    return (found["set"] or "") if found else None
