"""Texts that are not a sidecar by name, but may be meant as one."""

import re
from dataclasses import dataclass

from uecwatchd.config.documents import Malformed, decode
from uecwatchd.intake.sidecar import KEYS, machines_in

_ASSIGNMENT = re.compile(r"""[\s{,]*["']?(\w+)["']?\s*[:=]""")
# Comments, sections, brackets, and items of a list over several lines.
_BESIDES = re.compile(
    r"""[#;].*|//.*|\[.*\]|[]{}\[,]*|---|\.\.\.|- +[^\s:=]+|(?:- +)?(?:"[^"]*"|'[^']*'),?|[^\s:=]+,"""
)
_LINE_OF_SUMS = re.compile(r"\\?[0-9A-Fa-f]{64}(?:\s|$)|SHA(?:2-)?256 ?\(")

# Keys that are also in os-release, package lists, build notes and network settings.
COMMON_KEYS = frozenset(("name", "version", "description", "arch", "platform", "tags"))


@dataclass(frozen=True, slots=True)
class SidecarWords:
    """Keys of a sidecar in such a text, and the machine images that it names."""

    keys: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()


def find_sidecar_words(data: bytes) -> SidecarWords:
    """Return the content of such a text that may be meant for a sidecar."""
    keys = keys_in(data)
    return SidecarWords(keys, machines_in(data) if "machine" in keys else ())


def keys_in(data: bytes) -> tuple[str, ...]:
    """Return the keys of a sidecar in a text: TOML, JSON, YAML or an ini file. Prose has none.

    A text with only common keys and other keys beside them is not a sidecar. A list of sums under an unusual
    name has the key sha256.
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
