"""Words for a file that the system does not let us read."""

from pathlib import Path

from uecwatchd.errors import NotPermitted


def closed(path: Path, *, what: str) -> NotPermitted:
    """The error for `path`, called `what`, with its mode and owner and the command that opens it."""
    try:
        facts = path.stat()
    except OSError:
        return NotPermitted(what, "a folder above it is closed to us", f"Look with: namei -l {path}.")
    why = f"cannot read it (mode {facts.st_mode & 0o7777:04o}, owner {_owner(path, facts.st_uid)})"
    return NotPermitted(what, why, f"Try: chmod g+r {path}, with a group that we are in.")


def _owner(path: Path, uid: int) -> str:
    try:
        return path.owner()
    except KeyError:
        return str(uid)
