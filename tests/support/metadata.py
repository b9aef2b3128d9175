"""Metadata as large as it may be: what costs the most to parse, to refuse, or to keep."""

import itertools
from collections.abc import Callable, Mapping

from uecwatchd.intake.sidecar import MOST_ENTRIES, SIDECAR_LIMIT_BYTES


def full(piece: Callable[[int], bytes], *, head: bytes = b"", tail: bytes = b"") -> bytes:
    """As many pieces as a file of metadata may hold."""
    space, pieces = SIDECAR_LIMIT_BYTES - len(head) - len(tail), []
    for one in map(piece, itertools.count()):
        if (space := space - len(one)) < 0:
            return head + b"".join(pieces) + tail
        pieces.append(one)
    raise AssertionError


DIGEST = b"0123456789abcdef" * 4

# By the ending of the file's name: what costs the most to parse, to refuse, or to keep.
WORST: Mapping[str, tuple[str, bytes]] = {
    "a list of numbers": (".toml", full(lambda _: b"1,", head=b"share=[", tail=b"]")),
    "a list of short texts": (".toml", full(lambda _: b'"a",', head=b"share=[", tail=b"]")),
    "a list of tables": (".toml", full(lambda _: b"{},", head=b"clouds=[", tail=b"]")),
    "unknown keys": (".toml", full(lambda n: b"k%d=1\n" % n)),
    "unknown tables": (".toml", full(lambda n: b"[a%d]\n" % n)),
    "tags": (".toml", full(lambda n: b"k%d=1," % n, head=b"tags={", tail=b"}")),
    "sums": (".toml", full(lambda n: b"k%d=1," % n, head=b"sha256={", tail=b"}")),
    "a key twice": (".toml", b'["' + b"a" * 30_000 + b'"]\n["' + b"a" * 30_000 + b'"]\n'),
    "keys in ten bytes a letter": (
        ".toml",
        b"".join(b'"%d%s"=1\n' % (n, "\U000e0001".encode() * 90) for n in range(150)),
    ),
    "dots": (".toml", b"a" + b".a" * 999 + b"=1"),
    "escapes": (".toml", full(lambda _: b"\\u0041", head=b'description="', tail=b'"')),
    "numbers in JSON": (".json", full(lambda _: b"1,", head=b'{"share":[', tail=b"1]}")),
    "keys in JSON": (".json", full(lambda n: b'"k%d":1,' % n, head=b"{", tail=b'"z":1}')),
    "lists in JSON": (".json", full(lambda _: b"[],", head=b'{"tags":[', tail=b"1]}")),
    "good sums": (".sha256", full(lambda n: DIGEST + b"  %d\n" % n)),
    "good sums that are kept": (
        ".toml",
        b"sha256={" + b",".join(b'"%d"="%s"' % (n, DIGEST) for n in range(MOST_ENTRIES)) + b"}",
    ),
}
