"""The files of a build, opened once: what is installed from is what the service has seen.

QEMU gets them as descriptors. So a file that is replaced under its name changes nothing, and one that is
written to is noticed by its stamp at the end.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from uecwatchd.errors import Deferred, Rejected
from uecwatchd.install.answers import ANSWERS_LIMIT_BYTES
from uecwatchd.install.request import RecipeFile
from uecwatchd.system.text import file_word, format_size

AGAIN = "It is tried again by itself."


class OpenFiles:
    """Open files by the keys of the recipe."""

    def __init__(self, files: Mapping[str, RecipeFile], descriptors: Mapping[str, int]) -> None:
        self._files = files
        self._descriptors = descriptors

    def __contains__(self, key: str) -> bool:
        return key in self._descriptors

    def name(self, key: str) -> str:
        return self._files[key].path.name

    def descriptor(self, key: str) -> int:
        return self._descriptors[key]

    def path(self, key: str) -> str:
        """Return the path by which a child process opens it."""
        return f"/dev/fd/{self._descriptors[key]}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(self._descriptors.values())

    def read_answers(self) -> bytes:
        """Return the answers. Raises Rejected if they are too large, and OSError."""
        size = os.fstat(self._descriptors["answers"]).st_size
        if size > ANSWERS_LIMIT_BYTES:
            why = f"it has {format_size(size)}, and answers may have {format_size(ANSWERS_LIMIT_BYTES)}"
            raise Rejected(f"{self.name('answers')}: it is too large", why, "Name the file with the answers.")
        return os.pread(self._descriptors["answers"], size, 0)

    def check_unchanged(self) -> None:
        """Raise Deferred if one of them was written to since the request."""
        for key, descriptor in self._descriptors.items():
            # The time of a change is also that of a second name or of other rights, as it is for members.
            if not self._files[key].stamp.is_of(os.fstat(descriptor)):
                raise Deferred(
                    f"{self.name(key)}: it has changed", "it is not the file of the request", AGAIN
                )


@contextmanager
def opened(files: Mapping[str, RecipeFile]) -> Iterator[OpenFiles]:
    """Open the files of a request. Raises Rejected and Deferred."""
    with ExitStack() as stack:
        descriptors: dict[str, int] = {}
        for key, file in files.items():
            descriptors[key] = _open(file.path)
            stack.callback(os.close, descriptors[key])
        found = OpenFiles(files, descriptors)
        found.check_unchanged()
        yield found


def _open(path: Path) -> int:
    what = f"{path.name}: it cannot be read"
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        hint = "Copy it again. In /home the worker does not see it: ProtectHome= in uecwatchd-build.service."
        raise Deferred(what, "it is not there any more", hint) from error
    except PermissionError as error:
        hint = f"Try: chmod g+r {file_word(path.name)}"
        raise Rejected(what, "its mode does not let the worker of installations read it", hint) from error
    except OSError as error:
        raise Deferred(what, error.strerror or str(error), AGAIN) from error
