"""Which of two folded names is a slip of the pen for the other, and not the name of something else."""

import re
from itertools import zip_longest

LETTERS = 4  # of a name in which one wrong letter is a slip and not another name
# Beyond that nobody types a name, and each letter of it costs as many again.
LETTERS_COMPARED = range(LETTERS, 65)
LETTERS_OF_TWO = 6  # of a word in which two are


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
