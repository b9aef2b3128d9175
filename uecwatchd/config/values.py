"""Values in documents of users: names of files, lines of text, sizes; each mistake as part of a sentence.

The configuration, the sidecar and the recipes of installations use this.
"""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from uecwatchd.system.text import quoted
from uecwatchd.types import BucketPlace

FILE_NAME_MAX_BYTES = 255  # of Linux file systems
EXPECT_MAX_CHARS = 200  # a line of a console, as far as it is shown
SIZE = re.compile(r"([0-9]{1,12})([KMGT])", re.IGNORECASE)
BUCKET_ADDRESS = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,254})(?:/([^\0]{0,500}))?", re.DOTALL)
# Regions that botocore accepts.
REGION = re.compile(r"(?![0-9]+$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
SIZE_SHIFTS = {"K": 10, "M": 20, "G": 30, "T": 40}


def plain_name(text: str) -> str:
    """Check the name of a file beside the sidecar. Raises ValueError.

    Hidden files are never members, because a scan ignores them.
    """
    if text in ("", ".", ".."):
        raise ValueError(f"= {quoted(text)} is not the name of a file")
    if "/" in text:
        raise ValueError(f"= {quoted(text)} is a path, not the name of a file beside the sidecar")
    if text.startswith("."):
        raise ValueError(f"= {quoted(text)} is a hidden file, which is never part of a set")
    if not text.isprintable():
        raise ValueError(f"= {quoted(text)} holds characters that cannot be shown")
    if len(text.encode()) > FILE_NAME_MAX_BYTES:
        raise ValueError(f"is longer than the {FILE_NAME_MAX_BYTES} bytes a file name may have")
    return text


def one_line(text: str) -> str:
    """Check that a text is one printable line. Raises ValueError."""
    if not text.isprintable():
        raise ValueError("must be one line without control characters")
    return text


def _as_size(value: object) -> object:
    """Return a size in bytes, from a text such as "5G"; the units are powers of 1024."""
    found = SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('must be a number with a unit, such as "512M" or "5G"')
    return int(found[1]) << SIZE_SHIFTS[found[2].upper()]


def _not_a_flag(value: object) -> object:
    # Python counts true as 1, and so would pydantic.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _as_bucket_place(value: object) -> object:
    """Return the bucket and prefix of an address; slashes around the prefix do not matter."""
    found = BUCKET_ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("must be the address of a bucket, such as s3://BUCKET/PREFIX")
    prefix = (found[2] or "").strip("/")
    return BucketPlace(found[1], f"{prefix}/" if prefix else "")


def _host_name(text: str) -> str:
    # It stands before the folders of a host, with a colon between.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError("is no name for a host: use letters, digits, dots and hyphens")
    return text


def _region(text: str) -> str:
    # It becomes a part of host names and of signatures.
    if not re.fullmatch(REGION, text):
        raise ValueError("is no name for a region: use letters, digits and hyphens")
    return text


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("must be an absolute path")
    return path


Number = Annotated[float, BeforeValidator(_not_a_flag), Field(allow_inf_nan=False)]
Integer = Annotated[int, BeforeValidator(_not_a_flag)]
BucketAddress = Annotated[BucketPlace, BeforeValidator(_as_bucket_place)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
HostName = Annotated[str, AfterValidator(_host_name)]
Region = Annotated[str, AfterValidator(_region)]
PlainName = Annotated[str, AfterValidator(plain_name)]
Line = Annotated[str, Field(min_length=1), AfterValidator(one_line)]
Expected = Annotated[str, Field(min_length=1, max_length=EXPECT_MAX_CHARS), AfterValidator(one_line)]
Size = Annotated[int, BeforeValidator(_as_size)]
