"""The sums in a checksum file, in each form that tools write them.

The text comes from whoever may write to the drop folder, and every way in which it can be wrong ends as one
`Rejected`.
"""

import re
from collections.abc import Iterable, Mapping

from uecwatchd.errors import Rejected
from uecwatchd.images.file_names import folded, role_by_name, sums_target
from uecwatchd.intake.sidecar import bounded, last_part, plain_name
from uecwatchd.system.text import Malformed, decode, file_word

_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_LINE_END = re.compile(r"\r\n|[\n\r\0]")  # the last is what `sha256sum -z` writes
_TAG = re.compile(r"\\?[A-Z][A-Z0-9-]* ?\(")


def read_checksums(file_name: str, data: bytes) -> Mapping[str, str]:
    """Read what `sha256sum` writes, with and without --tag, or a digest alone. Gives name → digest.

    A leading `./` is what `sha256sum ./*` writes, and left out. In a list for several files names may be
    paths, and sums of other kinds are left out; so is the armor of a signed text. Raises Rejected.
    """
    try:
        return parse_checksums(file_name, data)
    except Malformed as error:
        raise unusable_checksums(file_name, error) from error


def parse_checksums(file_name: str, data: bytes) -> Mapping[str, str]:
    """Raises Malformed at the first line that is wrong."""
    name = last_part(file_name)
    target = sums_target(name) or ""
    digests: dict[str, str] = {}
    lines = _unarmored(_LINE_END.split(decode(bounded(data))))
    for number, line in lines:
        _add_checksum(digests, line, target=target, place=f"line {number}")
    if not digests and (lines or target) and not (lines and _is_general(name)):
        raise Malformed("it holds no checksum")
    return digests


def unusable_checksums(file_name: str, error: Malformed) -> Rejected:
    """What is said of a file because of what is wrong with its text."""
    folder, target = file_name[: file_name.rfind("/") + 1], sums_target(last_part(file_name))
    hint = "Correct it, or move it away."
    if target and role_by_name(target):
        listed, where = file_word(folder + target), file_word(file_name)
        hint = f"Write it anew, or move it away. Try: sha256sum {listed} > {where}"
    return Rejected(f"{file_name}: it cannot be used", str(error), hint)


def _is_general(name: str) -> bool:
    """Whether a list may have sums of other kinds: by its name it does not say which it has."""
    return "256" not in name


def _unarmored(lines: Iterable[str]) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers; of a signed text those that are signed."""
    told: list[tuple[int, str]] = []
    is_header = False
    for number, line in enumerate(lines, start=1):
        if line == "-----BEGIN PGP SIGNATURE-----":
            break
        is_header = line == "-----BEGIN PGP SIGNED MESSAGE-----" or (is_header and bool(line.strip()))
        if line.strip() and not line.startswith("#") and not is_header:
            told.append((number, line.removeprefix("- ")))
    return told


_SUM = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9A-Fa-f]{64}) [ *](?:\./)?(?P<name>.+)")
_TAGGED = re.compile(
    r"(?P<escaped>\\?)SHA(?:2-)?256 ?\((?:\./)?(?P<name>.+)\) ?= ?(?P<digest>[0-9A-Fa-f]{64})"
)
_OTHER_SUM = re.compile(
    r"\\?(?:[A-Z][A-Z0-9-]* ?\(.+\) ?= ?[0-9A-Za-z]+|(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{56}"
    r"|[0-9A-Fa-f]{96}|[0-9A-Fa-f]{128}) [ *].+)"
)


def _add_checksum(digests: dict[str, str], line: str, *, target: str, place: str) -> None:
    if _SHA256.fullmatch(line.strip()) and "." in target:
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
    """A name in a list, or a path where it is for many files; `sha256sum /tmp/a.img` writes a path too."""
    if is_escaped:
        name = name.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
    if not name.isprintable() and is_escaped:
        raise Malformed(f"{place}: a name with a newline or a backslash cannot be part of a set")
    if target and folded(name).startswith(folded(f"{target}/")):  # `sha256sum karmic/*` writes it
        name = name.partition("/")[2]
    if last_part(name) == target or (not target and not name.startswith(".")):
        return last_part(name) if target else name
    try:
        return plain_name(name)
    except ValueError as error:
        if not target:  # one of many, and never a member
            return name
        raise Malformed(f"{place}: name {error}") from error
