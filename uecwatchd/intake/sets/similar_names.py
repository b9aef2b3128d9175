"""Which of two folded names is a slip of the pen for the other, and not the name of something else."""

import re
from collections.abc import Collection, Mapping
from itertools import zip_longest

LETTERS = 4  # of a name in which one wrong letter is a slip and not another name
# Beyond that nobody types a name, and each letter of it costs as many again.
LETTERS_COMPARED = range(LETTERS, 65)
LETTERS_OF_TWO = 6  # of a word in which two are
# So few pairs of names are all compared, whatever the two have in common: each takes a fraction of a
# millisecond.
FEW_PAIRS = 5_000
MOST_COMPARED = 100_000  # pairs of more names; beyond, names are near that begin with the whole of another
MOST_ALIKE = 100  # names with one trait, of which each may be meant; what more have says nothing of any
# What ten thousand names have, in fifty megabytes of memory. Of more, the others are compared as a whole.
MOST_TRAITS = 200_000


class Names:
    """Names that are still to be found by another that is nearly one of them: each is given once.

    `keys` are the names folded, `others` is how many they will be compared with. Whoever makes up names by
    the thousand cannot have each compared with each.
    """

    def __init__(self, keys: Mapping[str, str], *, others: int) -> None:
        self._keys = dict(keys)
        self._are_few = len(keys) * others <= FEW_PAIRS
        self._left = MOST_COMPARED
        self._index: dict[str, list[str]] = {}
        for name, key in () if self._are_few else keys.items():
            for trait in traits_of(key) if len(self._index) < MOST_TRAITS else {key}:
                self._index.setdefault(trait, []).append(name)

    def take_all(self) -> list[str]:
        names = list(self._keys)
        self._keys.clear()
        return names

    def take_near(self, stem: str) -> list[str]:
        near = [name for name in self._to_compare(stem) if is_near(stem, self._keys[name])]
        for name in near:
            del self._keys[name]
        return near

    def _to_compare(self, stem: str) -> Collection[str]:
        if self._are_few:
            return self._keys
        traits = traits_of(stem) if self._left > 0 else {stem}
        shared = {trait: self._index.get(trait, ()) for trait in traits}
        lists = [names for trait, names in shared.items() if trait == stem or len(names) <= MOST_ALIKE]
        found = self._keys.keys() & {name for names in lists for name in names}
        self._left -= len(found)
        return found


def traits_of(key: str) -> set[str]:
    """What two names have in common if one letter differs, one has more words, or only signs differ."""
    letters = {key[:i] + key[i + 1 :] for i in range(len(key))} if len(key) in LETTERS_COMPARED else set()
    words = {key[: found.start()] for found in re.finditer(r"[\W_]", key)}
    return {key, _plain(key), *letters, *words}


def _plain(key: str) -> str:
    """A name without signs, and without the noughts before its numbers: `web1` of web-01."""
    return re.sub(r"[\W_]", "", re.sub(r"(?<!\d)0+(?=\d)", "", key))


def is_near(stem: str, key: str) -> bool:
    """Names that differ in their numbers are versions of one thing, and not slips."""
    if _plain(stem) == _plain(key) or _begins(key, stem):
        return True
    if _begins(stem, key):
        return any(letter.isalpha() for letter in stem[len(key) :])
    if min(len(stem), len(key)) < LETTERS or _numbers(stem) != _numbers(key):
        return False
    return _slips(stem, key, 1) or (_differ_in_long_words(stem, key) and _slips(stem, key, 2))


def _begins(longer: str, shorter: str) -> bool:
    return longer.startswith(shorter) and bool(re.match(r"[\W_]", longer[len(shorter) :]))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", text)]


def _differ_in_long_words(one: str, other: str) -> bool:
    """Two letters make another word of a short one: web-de and web-fr, prod-east and prod-west."""
    pairs = zip_longest(re.split(r"[\W_]", one), re.split(r"[\W_]", other), fillvalue="")
    return all(max(len(a), len(b)) >= LETTERS_OF_TWO for a, b in pairs if a != b)


def _slips(one: str, other: str, most: int) -> bool:
    """Whether not more letters were left out, added, mistaken, or exchanged with the next."""
    pairs = enumerate(zip(one, other, strict=False))
    start = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
    a, b = one[start:], other[start:]
    if a == b or most == 0 or abs(len(a) - len(b)) > most:
        return a == b
    rests = [(a[1:], b), (a, b[1:]), (a[1:], b[1:])]
    if a[:2] == b[1::-1]:
        rests.append((a[2:], b[2:]))
    return any(_slips(*rest, most - 1) for rest in rests)
