"""Names of sets as people type them, and the set that is meant among those of the ledger."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from posixpath import basename, normpath
from typing import Self

from uecwatchd.config.documents import did_you_mean
from uecwatchd.errors import UecError
from uecwatchd.intake.sets.candidates import stem_of
from uecwatchd.ledger.records import SetRecord
from uecwatchd.system.text import printable, shell_word
from uecwatchd.types import SetId


class NoSuchSet(UecError):
    exit_code = 66


class Ambiguous(UecError):
    exit_code = 64

    @classmethod
    def of(cls, words: str, meant: Sequence[SetId]) -> Self:
        named = " or ".join(shell_word(str(one)) for one in meant)
        return cls(f"{words}: more than one set could be meant", f"{len(meant)} have it", f"Say {named}.")


def find_past_set(words: str, past: Iterable[SetId], records: Collection[SetRecord]) -> SetId:
    """Return the set with this name or file, of those with a history or a record. Looks into no folder.

    Raises NoSuchSet or Ambiguous.
    """
    asked = normpath(words)
    known = {*past, *(record.id for record in records)}
    for found in _matches(asked, known, records):
        if len(found) > 1:
            raise Ambiguous.of(words, sorted(found))
        if found:
            return found.pop()
    near = did_you_mean(words, (one.name for one in known))
    why = f"the ledger knows no set of this name{near}"
    raise NoSuchSet(f"{words}: there is no history of it", why, "See what there is: uecwatchd history")


def _matches(asked: str, known: Collection[SetId], records: Iterable[SetRecord]) -> Iterator[set[SetId]]:
    """Yield the sets with this name, then those with this member, then those with the stem of this file."""
    yield {one for one in known if _is_named(asked, one)}
    files = ((record.id, member.path) for record in records for member in record.members)
    yield {one for one, path in files if _is_named(asked, SetId(one.folder, path))}
    file = basename(asked)
    stem = asked.removesuffix(file) + stem_of(file)
    yield {one for one in known if _is_named(stem, one)}


def _is_named(asked: str, one: SetId) -> bool:
    return any(asked in (text, printable(text)) for text in (one.name, str(one)))
