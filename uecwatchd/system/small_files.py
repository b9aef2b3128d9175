"""Small files that are read whole: configuration, credentials, keys, certificates.

A wrong path may lead to a pipe without a writer, or to a device that never ends.
"""

import errno
import os
import stat
from io import BytesIO, TextIOWrapper
from pathlib import Path

# The longest of them, a system's bundle of all public authorities, has a quarter of that.
LIMIT_BYTES = 1024 * 1024


def read_small(path: Path) -> bytes:
    """Return the content of a file. Raises OSError, also if it is not a regular file or too large."""
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        data = file.read(LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        raise OSError(errno.EFBIG, "it is larger than 1 MiB", str(path))
    return data


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_small_text(path: Path, *, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return the content as text, with universal newlines.

    Raises OSError, and UnicodeDecodeError depending on `errors`.
    """
    return TextIOWrapper(BytesIO(read_small(path)), encoding=encoding, errors=errors).read()
