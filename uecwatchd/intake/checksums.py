"""Parser for checksum files, in all formats that tools write.

The text is untrusted. The first mistake in it is raised as `Malformed`, and worded as one `Rejected`.
"""

import re
from collections.abc import Iterable, Mapping
from posixpath import basename

from uecwatchd.config.documents import Malformed, decode
from uecwatchd.config.values import plain_name
from uecwatchd.errors import Rejected
from uecwatchd.images.file_names import checksums_target, fold_name, role_by_name
from uecwatchd.intake.sidecar import bounded
from uecwatchd.system.text import file_word
from uecwatchd.types import SHA256_DIGITS

_LINE_END = re.compile(r"\r\n|[\n\r\0]")  # `sha256sum -z` writes \0
_TAG = re.compile(r"\\?[A-Z][A-Z0-9-]* ?\(")


def parse_checksums(file_name: str, data: bytes) -> Mapping[str, str]:
    """Parse the output of `sha256sum`, with or without --tag, or a digest alone. Returns name → digest.

    A leading `./`, as `sha256sum ./*` writes it, is removed. In a list for several files, names may be paths,
    and other kinds of sums are ignored. The armor of a signed text is ignored too. Raises Malformed at the
    first bad line.
    """
    name = basename(file_name)
    target = checksums_target(name) or ""
    digests: dict[str, str] = {}
    lines = _unarmored(_LINE_END.split(decode(bounded(data))))
    for number, line in lines:
        _add_checksum(digests, line, target=target, place=f"line {number}")
    # A list whose name does not say which sums it has may hold other kinds alone.
    is_general = "256" not in name
    if not digests and (lines or target) and not (lines and is_general):
        raise Malformed("it holds no checksum")
    return digests


def unusable_checksums(file_name: str, error: Malformed) -> Rejected:
    """Return the error for a file whose text is malformed."""
    folder, target = file_name[: file_name.rfind("/") + 1], checksums_target(basename(file_name))
    hint = "Correct it, or move it away."
    if target and role_by_name(target):
        listed, where = file_word(folder + target), file_word(file_name)
        hint = f"Write it again, or move it away. Try: sha256sum {listed} > {where}"
    return Rejected(f"{file_name}: it cannot be used", str(error), hint)


def _unarmored(lines: Iterable[str]) -> list[tuple[int, str]]:
    """Return the lines with content, with their numbers; of a signed text only the signed lines."""
    numbered: list[tuple[int, str]] = []
    is_header = False
    for number, line in enumerate(lines, start=1):
        if line == "-----BEGIN PGP SIGNATURE-----":
            break
        is_header = line == "-----BEGIN PGP SIGNED MESSAGE-----" or (is_header and bool(line.strip()))
        if line.strip() and not line.startswith("#") and not is_header:
            numbered.append((number, line.removeprefix("- ")))
    return numbered


_SUM = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9A-Fa-f]{64}) [ *](?:\./)?(?P<name>.+)")
_TAGGED = re.compile(
    r"(?P<escaped>\\?)SHA(?:2-)?256 ?\((?:\./)?(?P<name>.+)\) ?= ?(?P<digest>[0-9A-Fa-f]{64})"
)
_OTHER_SUM = re.compile(
    r"\\?(?:[A-Z][A-Z0-9-]* ?\(.+\) ?= ?[0-9A-Za-z]+|(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{56}"
    r"|[0-9A-Fa-f]{96}|[0-9A-Fa-f]{128}) [ *].+)"
)


def _add_checksum(digests: dict[str, str], line: str, *, target: str, place: str) -> None:
    if SHA256_DIGITS.fullmatch(line.strip()) and "." in target:
        parts = {"escaped": "", "digest": line.strip(), "name": target}
    elif found := _SUM.fullmatch(line) or _TAGGED.fullmatch(line):
        parts = found.groupdict()
    elif _OTHER_SUM.fullmatch(line) and (_TAG.match(line) or not target):
        return
    else:
        raise Malformed(f"{place} is not a SHA-256, two spaces and a name")
    name = _listed_name(parts["name"], is_escaped=bool(parts["escaped"]), target=target, place=place)
    digest = parts["digest"].lower()
    if digests.setdefault(name, digest) != digest:
        raise Malformed(f"{place}: a second and different digest for {name}")


def _listed_name(name: str, *, is_escaped: bool, target: str, place: str) -> str:
    """Return a name from a list, or a path if the list is for many files.

    `sha256sum /tmp/a.img` also writes a path.
    """
    if is_escaped:
        name = name.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
    if not name.isprintable() and is_escaped:
        raise Malformed(f"{place}: a name with a newline or a backslash cannot be part of a set")
    if target and fold_name(name).startswith(fold_name(f"{target}/")):  # `sha256sum karmic/*` writes it
        name = name.partition("/")[2]
    if basename(name) == target or (not target and not name.startswith(".")):
        return basename(name) if target else name
    try:
        return plain_name(name)
    except ValueError as error:
        if not target:  # one name of many, which can never be a member
            return name
        raise Malformed(f"{place}: name {error}") from error
