"""Texts that are no sidecar by their name, and may have been meant for one."""

import re
from dataclasses import dataclass

from uecwatchd.intake.sidecar import KEYS, machines_in
from uecwatchd.system.text import Malformed, decode

_ASSIGNMENT = re.compile(r"""[\s{,]*["']?(\w+)["']?\s*[:=]""")
# Comments, sections, brackets, and what stands in a list of several lines.
_BESIDES = re.compile(
    r"""[#;].*|//.*|\[.*\]|[]{}\[,]*|---|\.\.\.|- +[^\s:=]+|(?:- +)?(?:"[^"]*"|'[^']*'),?|[^\s:=]+,"""
)
_LINE_OF_SUMS = re.compile(r"\\?[0-9A-Fa-f]{64}(?:\s|$)|SHA(?:2-)?256 ?\(")

# What os-release, package lists, notes of a build and settings of a network have as well.
COMMON_KEYS = frozenset(("name", "version", "description", "arch", "platform", "tags"))


@dataclass(frozen=True, slots=True)
class Words:
    """What a text that is no sidecar gives: keys of one, and the machine images that it names."""

    keys: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()


def words_in(data: bytes) -> Words:
    """Return what a text of another name says that may have been meant for a sidecar."""
    keys = keys_in(data)
    return Words(keys, machines_in(data) if "machine" in keys else ())


def keys_in(data: bytes) -> tuple[str, ...]:
    """Return which keys of a sidecar a text gives, be it TOML, JSON, YAML or an ini file; none of prose.

    Keys that many programs have make no sidecar of a text with others beside them.
    A list of sums under another name than such lists have gives sha256.
    """
    try:
        lines = [line for line in decode(data).splitlines() if not _BESIDES.fullmatch(line.strip())]
    except Malformed:
        return ()
    if lines and all(map(_LINE_OF_SUMS.match, lines)):
        return ("sha256",)
    given = [found[1] for line in lines if (found := _ASSIGNMENT.match(line))]
    keys = tuple(key for key in KEYS if key in map(str.lower, given))
    is_ours = not COMMON_KEYS.issuperset(keys) or set(given) <= set(KEYS)
    return keys if is_ours and 2 * len(given) > len(lines) else ()
