"""Names in a folder, up to a limit. The owner with the most names loses some first."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice

# Names that one scan reads from a folder, and again from all folders in it: each takes one or two kilobytes
# of memory in the end.
MOST_NAMES = 100_000
# Names in the folder of one set, which usually has a few files.
MOST_NAMES_IN_A_SET = 1000


def names_in(descriptor: int, most: int) -> tuple[Sequence[str], Mapping[int, int]]:
    """Return the names in an open folder, sorted, and how many of each owner (uid) are left out.

    Owners with few names keep all of them.
    """
    with os.scandir(descriptor) as found:
        names = [entry.name for entry in islice(found, most + 1)]
    if len(names) <= most:
        return sorted(names), {}
    return _fair_names(descriptor, most)


def _fair_names(descriptor: int, most: int) -> tuple[Sequence[str], Mapping[int, int]]:
    kept: dict[int, list[str]] = {}
    left_out: dict[int, int] = {}
    count = 0
    with os.scandir(descriptor) as found:
        for entry in found:
            with suppress(OSError):  # gone by now
                kept.setdefault(entry.stat(follow_symlinks=False).st_uid, []).append(entry.name)
                count += 1
            if count > most:
                largest = max(kept, key=lambda uid: len(kept[uid]))
                kept[largest].pop()
                left_out[largest] = left_out.get(largest, 0) + 1
                count -= 1
    return sorted(chain.from_iterable(kept.values())), left_out
