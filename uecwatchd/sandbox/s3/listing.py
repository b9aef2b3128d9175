"""One page of a bucket's keys, as both versions of ListObjects cut it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """One page of keys and common prefixes, each in byte order. `last` begins the next page, if any."""

    keys: tuple[str, ...]
    prefixes: tuple[str, ...]
    last: str | None


def cut_page(keys: Iterable[str], *, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """Cut one page out of `keys`, which are in byte order.

    A common prefix counts as one entry, and as passed if `after` is within it.
    """
    found: dict[str, bool] = {}  # entry: whether it is a common prefix
    last = ""
    for key in keys:
        if not key.startswith(prefix):
            continue
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        shared = end >= 0
        entry = key[: end + len(delimiter)] if shared else key
        if entry in found or key <= after or (shared and after.startswith(entry)):
            continue
        if len(found) == limit:
            return _page(found, last or None)
        found[entry] = shared
        last = entry
    return _page(found, None)


def _page(found: dict[str, bool], last: str | None) -> Page:
    keys = tuple(entry for entry, shared in found.items() if not shared)
    prefixes = tuple(entry for entry, shared in found.items() if shared)
    return Page(keys, prefixes, last)
