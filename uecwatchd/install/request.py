"""Build requests: the files by which the service and the worker of installations know of each other.

    BUILDS/queue/KEY            empty: the worker has something to do for this build
    BUILDS/KEY/request.json     what is to be built, written by the service
    BUILDS/KEY/cancel           empty: the build is withdrawn; the worker ends it and removes the folder
    BUILDS/KEY/status.json      how far it is, written by the worker
    BUILDS/KEY/console.log      what the machine writes on its serial port
    BUILDS/KEY/console.sock     the serial port itself, while a machine runs
    BUILDS/KEY/vnc.sock         its screen, likewise
    BUILDS/KEY/disk.qcow2       the built disk; it is a result only if the status says "done"
    BUILDS/KEY/screenshot.png   the screen of a failed build

Both sides may have different users: the folder has a group of its own (mode 2770, and an ACL that gives the
group the same right in new folders), which both are in. Neither
follows a link of the other, and a status is read like the text of a stranger, because a worker handles ISO
images of strangers.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from uecwatchd.config.documents import Malformed, parse_json
from uecwatchd.errors import Deferred
from uecwatchd.install.recipe import InstallRecipe, read_recipe, write_recipe
from uecwatchd.system import failpoints
from uecwatchd.types import ContentDigest, FileStamp

REQUEST_VERSION, STATUS_VERSION = 1, 1
QUEUE, REQUEST, STATUS, CANCEL = "queue", "request.json", "status.json", "cancel"
CONSOLE, CONSOLE_SOCKET, VNC_SOCKET = "console.log", "console.sock", "vnc.sock"
DISK: Final = "disk.qcow2"
SCREENSHOT: Final = "screenshot.png"
REMOVED = ".removed"  # at the end of the name of a folder that is to go
# The group of both sides may write in the folders, and the mask of a service takes that away.
FOLDER_MODE, FILE_MODE = 0o2770, 0o640
TRIES = 3
# A recipe of 64 KiB, and forty lines of a console, with all escapes.
DOCUMENT_LIMIT_BYTES = 1 << 20
KEY = re.compile(r"[0-9a-f]{32}")

State = Literal["queued", "running", "done", "failed"]
Stage = Literal["prepare", "install", "second boot"]
#: "rejected": the recipe or its files must change; "deferred": a later attempt can succeed
FailureKind = Literal["rejected", "deferred"]
Accelerator = Literal["auto", "kvm", "tcg"]


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A file of a recipe: its absolute path, and its stamp when the request was written."""

    path: Path
    stamp: FileStamp


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """A system to be installed. `files` are by the keys of the recipe: iso, base, answers, drivers."""

    key: str
    set_name: str
    recipe: InstallRecipe
    files: Mapping[str, RecipeFile]
    accelerator: Accelerator = "auto"


@dataclass(frozen=True, slots=True)
class BuildFailure:
    """The reason of a failed build, as a sentence."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: FailureKind
    what: str
    why: str
    hint: str


@dataclass(frozen=True, slots=True)
class BuildStatus:
    """State and progress of a build. Times are in seconds of the epoch.

    `disk` and `screenshot` are names of files in the folder of the build; empty if there are none.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    key: str
    state: State
    began: float
    stage: Stage = "prepare"
    stage_began: float = 0.0
    last_line: str = ""  #: of the console
    accelerator: str = ""  #: "kvm" or "tcg"; empty before it is known
    disk: Literal["", "disk.qcow2"] = ""
    screenshot: Literal["", "screenshot.png"] = ""
    failure: BuildFailure | None = None
    console: tuple[str, ...] = ()  #: its last lines, of a failed build
    ended: float = 0.0  #: 0 before the end

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed")


_STATUS = TypeAdapter(BuildStatus)


def build_key(recipe: InstallRecipe, digests: Mapping[str, ContentDigest]) -> str:
    """Return the key of a build, the same for the same inputs.

    `digests` are those of the files by the keys of the recipe. The names of ISO and base do not matter; those
    of answers and drivers tell how they are handed over. What the disk does not depend on is left out.
    """
    named = {f"{key} digest": digests[key] for key in recipe.files}
    table = write_recipe(replace(recipe, iso=None, base=None, keep=False))
    text = json.dumps([REQUEST_VERSION, {**table, **named}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# --- requests, by the service -----------------------------------------------------------------------------


def write_request(builds: Path, request: BuildRequest) -> bool:
    """Ask for a build, in place of a failed or withdrawn one. Raises Deferred.

    Returns False for one that is done or under way: another set has the same inputs, and may have asked for
    it since the caller has looked.
    """
    if _is_known(builds, request.key):
        return False
    folder = builds / request.key
    files = {key: {"path": str(one.path), "stamp": list(one.stamp)} for key, one in request.files.items()}
    document = {
        "version": REQUEST_VERSION,
        "key": request.key,
        "set_name": request.set_name,
        "recipe": write_recipe(request.recipe),
        "files": files,
        "accelerator": request.accelerator,
    }
    with _translate_errors(builds), failpoints.effect("write a build request"):
        for _ in range(TRIES):
            _make_shared(folder)
            for name in (CANCEL, STATUS, SCREENSHOT):
                (folder / name).unlink(missing_ok=True)
            _replace(folder / REQUEST, json.dumps(document).encode())
            _queue(builds, request.key)
            if (folder / REQUEST).exists():
                break  # or the worker has just removed the withdrawn build that was there
    return True


def _is_known(builds: Path, key: str) -> bool:
    """Tell if the worker has a build, or its disk. A status that cannot be used is replaced."""
    with suppress(Deferred):
        status = None if is_withdrawn(builds, key) else read_status(builds, key)
        if status and status.state == "done":
            return (builds / key / DISK).exists()
        return status is not None and not status.is_over
    return False


def read_request(builds: Path, key: str) -> BuildRequest:
    """Return the request for a build. Raises Malformed, and FileNotFoundError if there is none."""
    document = parse_json(_read(builds / key / REQUEST))
    if document.get("version") != REQUEST_VERSION or document.get("key") != key:
        raise Malformed("it is not a request of this version for this build")
    try:
        files = {
            name: RecipeFile(Path(one["path"]), FileStamp(*map(int, one["stamp"])))
            for name, one in document["files"].items()
        }
        return BuildRequest(
            key,
            str(document["set_name"]),
            read_recipe(document["recipe"]),
            MappingProxyType(files),
            document["accelerator"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Malformed(f"it is not a request for a build ({error})") from error


def withdraw_request(builds: Path, key: str) -> None:
    """Let the worker end a build, if it runs, and remove all of it. Raises Deferred."""
    if not os.path.isdir(builds / key):  # noqa: PTH112 (Path.is_dir raises PermissionError)
        return
    with _translate_errors(builds), failpoints.effect("withdraw a build request"):
        _replace(builds / key / CANCEL, b"")
        _queue(builds, key)


# --- the queue and the status, by the worker --------------------------------------------------------------


def queued_builds(builds: Path) -> tuple[str, ...]:
    """Return the keys of the builds that the worker has something to do for, the oldest first."""
    found = []
    with suppress(FileNotFoundError):
        for entry in os.scandir(builds / QUEUE):
            with suppress(FileNotFoundError):
                if KEY.fullmatch(entry.name):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
    return tuple(key for _, key in sorted(found))


def builds_there(builds: Path) -> tuple[str, ...]:
    """Return the keys of all builds with a folder. Raises OSError."""
    if not builds.exists():
        return ()
    return tuple(sorted(path.name for path in builds.iterdir() if KEY.fullmatch(path.name)))


def clear_queue(builds: Path) -> None:
    """Remove what is no build from the queue: as long as anything is there, a path unit starts a worker."""
    with suppress(FileNotFoundError):
        for path in (builds / QUEUE).iterdir():
            if not KEY.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()


def is_withdrawn(builds: Path, key: str) -> bool:
    """Tell if a build is to be ended and removed."""
    return os.path.lexists(builds / key / CANCEL)


def end_build(builds: Path, key: str) -> None:
    """Take a build out of the queue; a withdrawn one is removed first.

    The service may ask for it again at the same time. So its folder is renamed before it is removed, and a
    request that has come meanwhile is put into the queue again.
    """
    is_removed = is_withdrawn(builds, key)
    if is_removed:
        with failpoints.effect("remove a withdrawn build"), suppress(FileNotFoundError):
            (builds / key).rename(_removed_name(builds, key))
    (builds / QUEUE / key).unlink(missing_ok=True)
    if is_removed:
        remove_left_folders(builds)
        if (builds / key / REQUEST).exists():
            _queue(builds, key)


def remove_left_folders(builds: Path) -> None:
    """Remove the folders of withdrawn builds, also those that a dead worker has left."""
    for folder in builds.glob(f"*{REMOVED}"):
        shutil.rmtree(folder, ignore_errors=True)


def _removed_name(builds: Path, key: str) -> Path:
    return builds / f"{key}.{time.time_ns()}{REMOVED}"


def write_status(builds: Path, status: BuildStatus) -> None:
    """Replace the status of a build. Raises OSError."""
    document = {"version": STATUS_VERSION, **asdict(status)}
    with failpoints.effect("write a build status"):
        _replace(builds / status.key / STATUS, json.dumps(document).encode())


def read_status(builds: Path, key: str) -> BuildStatus | None:
    """Return the status of a build; None before the worker has written one. Raises Deferred."""
    try:
        document = parse_json(_read(builds / key / STATUS))
        if document.pop("version", None) != STATUS_VERSION or document.get("key") != key:
            raise Malformed("it is not a status of this version for this build")
        return _STATUS.validate_json(json.dumps(document), strict=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot_use(builds, error) from error
    except (Malformed, ValidationError) as error:
        why = str(error) if isinstance(error, Malformed) else "it is not what a worker writes"
        hint = "See that the service and the worker are of one version; a new attempt builds it again."
        raise Deferred(f"{builds / key / STATUS}: it cannot be used", why, hint) from error


def _queue(builds: Path, key: str) -> None:
    """Put a build into the queue, which may start the worker: everything else is written before."""
    _make_shared(builds / QUEUE)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(builds / QUEUE / key, flags, FILE_MODE))


# --- files ------------------------------------------------------------------------------------------------


def _make_shared(folder: Path) -> None:
    """Make a folder in which both sides may write.

    Group and setgid bit come from the folder around it, and the right of the group from its default ACL: the
    unit of the service has a mask, and may not set that bit itself. Without an ACL the mode is changed.
    """
    try:
        folder.mkdir(mode=FOLDER_MODE & 0o777)
    except FileExistsError:
        return
    if folder.stat().st_mode & stat.S_IWGRP:
        return
    try:
        folder.chmod(FOLDER_MODE)
    except OSError:
        folder.rmdir()  # or the next attempt would take it as it is
        raise


def _replace(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, and rename it."""
    temporary = path.with_name(
        f".{path.name}.{secrets.token_hex(8)}.part"
    )  # two threads may ask for one build
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, FILE_MODE), "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)  # whatever the umask is
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    """Return the content of a regular file. Raises OSError, and Malformed if it is too long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Malformed("it is no regular file")
        data = file.read(DOCUMENT_LIMIT_BYTES + 1)
    if len(data) > DOCUMENT_LIMIT_BYTES:
        raise Malformed("it is too long")
    return data


@contextmanager
def _translate_errors(builds: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _cannot_use(builds, error) from error


def _cannot_use(builds: Path, error: OSError) -> Deferred:
    hint = "Make the folder, or correct install.builds in the configuration: uecwatchd check."
    return Deferred(f"{builds}: installations need this folder", error.strerror or str(error), hint)
