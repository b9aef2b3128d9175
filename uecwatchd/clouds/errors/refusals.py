"""One row of the table of refusals, and the answers that it fits."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uecwatchd.errors import UecError

Half = Literal["s3", "ec2"]

ANY_STATUS = range(1000)
BOTH_HALVES: frozenset[Half] = frozenset({"s3", "ec2"})
S3_ALONE: frozenset[Half] = frozenset({"s3"})
EC2_ALONE: frozenset[Half] = frozenset({"ec2"})
EVERY_DIALECT: frozenset[str] = frozenset()

# A code of servers that have none, or one for everything. Its message may then begin with one.
NO_CODE = re.compile(r"\d{3}|Internal(Error|Failure)")
LEADING_CODE = re.compile(r"([A-Z]\w+(?:\.\w+)?)(?::|$)")
# Some servers say what kind of a code it is after a point, and those in Java what it is in Java.
CODE_END = r"(\.\w+|Exception)?"
# What may stand beside words of a sentence, and not within a name.
WORDS_BEGIN, WORDS_END = r"(?<![\w./-])", r"(?![\w/-])"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal by a cloud. `code` is its word for it, or the status if it had none; `message`
    is in one line."""

    half: Half
    status: int
    code: str
    message: str

    @property
    def codes(self) -> Iterator[str]:
        yield self.code
        if NO_CODE.fullmatch(self.code) and (leading := LEADING_CODE.match(self.message)):
            yield leading[1]


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """One kind of refusal: it has that code, or those words in its message. Case does not count.

    A row with neither fits whatever the refusal says.
    """

    kind: type[UecError]
    why: str
    hint: str
    code: str = ""
    words: str = ""
    statuses: range = ANY_STATUS
    halves: frozenset[Half] = BOTH_HALVES
    dialects: frozenset[str] = EVERY_DIALECT

    def fits(self, dialect: str, refusal: Refusal) -> bool:
        if refusal.status not in self.statuses or refusal.half not in self.halves:
            return False
        if self.dialects and dialect not in self.dialects:
            return False
        return not (self.code or self.words) or self._has_code(refusal) or self._has_words(refusal)

    def _has_code(self, refusal: Refusal) -> bool:
        pattern = f"(?:{self.code}){CODE_END}"
        return bool(self.code) and any(re.fullmatch(pattern, code, re.IGNORECASE) for code in refusal.codes)

    def _has_words(self, refusal: Refusal) -> bool:
        pattern = f"{WORDS_BEGIN}(?:{self.words}){WORDS_END}"
        return bool(self.words) and re.search(pattern, refusal.message, re.IGNORECASE) is not None
