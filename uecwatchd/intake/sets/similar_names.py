"""Comparison of folded names: is one a misspelling of the other, or the name of something else?"""

import re
from collections.abc import Collection, Mapping
from itertools import zip_longest

LETTERS = 4  # minimum length of a name with one wrong letter; shorter ones are other names
# Nobody types longer names, and the time grows with the square of the length.
LETTERS_COMPARED = range(LETTERS, 65)
LETTERS_OF_TWO = 6  # minimum length of a word with two wrong letters
# Up to this number all pairs of names are compared: each takes a fraction of a millisecond.
FEW_PAIRS = 5_000
MOST_COMPARED = (
    100_000  # pairs if there are more names; after that only names that begin with another are near
)
MOST_ALIKE = 100  # names with one trait; a trait of more names is not significant
# Traits of ten thousand names, in fifty megabytes of memory. Further names are compared only as a whole.
MOST_TRAITS = 200_000


class SimilarNames:
    """Names to be found by a similar name: each is returned once.

    `keys` are the folded names, `others` is how many names they will be compared with. If there are many, not
    all pairs are compared, because an attacker can make thousands of names.
    """

    def __init__(self, keys: Mapping[str, str], *, others: int) -> None:
        self._keys = dict(keys)
        self._are_few = len(keys) * others <= FEW_PAIRS
        self._left = MOST_COMPARED
        self._index: dict[str, list[str]] = {}
        if self._are_few:
            return
        for name, key in keys.items():
            traits = traits_of(key) if len(self._index) < MOST_TRAITS else {key}
            for trait in traits:
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
    """Return the traits of a name, to find similar ones.

    Two names have one in common if one letter differs, one has more words, or only punctuation differs.
    """
    letters = {key[:i] + key[i + 1 :] for i in range(len(key))} if len(key) in LETTERS_COMPARED else set()
    words = {key[: found.start()] for found in re.finditer(r"[\W_]", key)}
    return {key, _plain(key), *letters, *words}


def _plain(key: str) -> str:
    """Return a name without punctuation and leading zeros of numbers: `web1` for web-01."""
    return re.sub(r"[\W_]", "", re.sub(r"(?<!\d)0+(?=\d)", "", key))


def is_near(stem: str, key: str) -> bool:
    """Return True if one name is a misspelling of the other. Different numbers mean different versions."""
    if _plain(stem) == _plain(key) or _begins(key, stem):
        return True
    if _begins(stem, key):
        return any(letter.isalpha() for letter in stem[len(key) :])
    if min(len(stem), len(key)) < LETTERS or _numbers(stem) != _numbers(key):
        return False
    return _differ_by_typos(stem, key, 1) or (
        _differ_in_long_words(stem, key) and _differ_by_typos(stem, key, 2)
    )


def _begins(longer: str, shorter: str) -> bool:
    return longer.startswith(shorter) and bool(re.match(r"[\W_]", longer[len(shorter) :]))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", text)]


def _differ_in_long_words(one: str, other: str) -> bool:
    """Return True if only long words differ.

    In a short word, two wrong letters make another word: web-de and web-fr, prod-east and prod-west.
    """
    pairs = zip_longest(re.split(r"[\W_]", one), re.split(r"[\W_]", other), fillvalue="")
    return all(max(len(a), len(b)) >= LETTERS_OF_TWO for a, b in pairs if a != b)


def _differ_by_typos(one: str, other: str, most: int) -> bool:
    """Return True if at most `most` letters are missing, added, wrong, or swapped with the next."""
    pairs = enumerate(zip(one, other, strict=False))
    start = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
    a, b = one[start:], other[start:]
    if a == b or most == 0 or abs(len(a) - len(b)) > most:
        return a == b
    rests = [(a[1:], b), (a, b[1:]), (a[1:], b[1:])]
    if a[:2] == b[1::-1]:
        rests.append((a[2:], b[2:]))
    return any(_differ_by_typos(*rest, most - 1) for rest in rests)
