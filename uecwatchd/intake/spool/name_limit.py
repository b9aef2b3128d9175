"""Names in a folder, as many as there is room for; what is too much is taken from the owner who has most."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice

# Names that one look takes in of a folder, and again of all folders in it: with what is made of it, each
# takes a kilobyte or two of memory.
MOST_NAMES = 100_000
# Names in the folder of one set, which holds a handful of files.
MOST_NAMES_IN_A_SET = 1000


def names_in(descriptor: int, most: int) -> tuple[Sequence[str], Mapping[int, int]]:
    """The names in an open folder, in order, and how many of each owner are left out, by uid.

    Those who have few of them keep all of theirs.
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
            with suppress(OSError):  # gone meanwhile
                kept.setdefault(entry.stat(follow_symlinks=False).st_uid, []).append(entry.name)
                count += 1
            if count > most:
                greedy = max(kept, key=lambda uid: len(kept[uid]))
                kept[greedy].pop()
                left_out[greedy] = left_out.get(greedy, 0) + 1
                count -= 1
    return sorted(chain.from_iterable(kept.values())), left_out
