"""Limits of an answer's XML, checked before it is parsed.

A tree takes a hundred times the memory of the text that it is made from, and an entity, a tag or an attribute
can be made to take as much as its author likes. So a document is read once by the bare parser, which keeps
nothing, and refused where no cloud's answer would be like that. The same look finds the images of a long
list, which is cut there into pages: documents with some of the images each, read one after the other.
"""

from xml.parsers import expat

# The deepest answer known, a block device in a list of images, has eight.
MAX_DEPTH = 50
# Elements and attributes of what is read at once. A list of a thousand objects has some ten thousand.
MAX_ELEMENTS = 250_000
# One tag or comment, with all its attributes. Text may be longer.
LONGEST_TAG_BYTES = 64 * 1024
STEP_BYTES = 64 * 1024
PAGE_BYTES = 512 * 1024
# As botocore reads it, whatever the document says of itself.
ENCODING = "utf-8"

Span = tuple[int, int]


class UnsafeXml(ValueError):
    """The mistake of a document, as the end of a sentence."""


class BrokenXml(UnsafeXml):
    """It is no XML, or not all of one document."""


def check_xml(body: bytes) -> None:
    """Raise UnsafeXml unless the document keeps all limits."""
    _DocumentScan(body, "", most=MAX_ELEMENTS).scan()


def pages(body: bytes, parent: str) -> tuple[bytes, ...]:
    """Split a document into documents with some of the elements of `parent` each. Raises UnsafeXml."""
    spans = _DocumentScan(body, parent, most=MAX_ELEMENTS).scan()
    if len(body) <= PAGE_BYTES or not spans:
        return (body,)
    head, tail = body[: spans[0][0]], body[spans[-1][1] :]
    if len(head) + len(tail) > PAGE_BYTES:
        raise UnsafeXml("it has more around its list than in it")
    return tuple(head + body[start:end] + tail for start, end in spans)


class _DocumentScan:
    """One look at a document, and the places of its list's pages. `most` bounds what is around the list,
    and each thing in it.
    """

    def __init__(self, body: bytes, parent: str, *, most: int) -> None:
        self._body = body
        self._parent = parent
        self._most = most
        self._path: list[str] = []
        self._pieces = 0
        self._outside = 0
        self._start = 0
        self._spans: list[Span] = []
        self._parser = expat.ParserCreate(ENCODING)
        self._parser.StartElementHandler = self._opens
        self._parser.EndElementHandler = self._closes
        self._parser.StartDoctypeDeclHandler = self._declares
        self._parser.CommentHandler = self._passes
        self._parser.ProcessingInstructionHandler = self._passes
        self._parser.CharacterDataHandler = self._passes

    def scan(self) -> list[Span]:
        try:
            for at in range(0, len(self._body), STEP_BYTES):
                self._parser.Parse(self._body[at : at + STEP_BYTES], False)  # noqa: FBT003 (expat's own)
                if at - self._parser.CurrentByteIndex > LONGEST_TAG_BYTES:
                    raise UnsafeXml(f"one of its tags has more than {LONGEST_TAG_BYTES} bytes")
            self._parser.Parse(b"", True)  # noqa: FBT003
        except expat.ExpatError as error:
            raise BrokenXml(str(error)) from error
        return self._spans

    def _opens(self, name: str, attributes: dict[str, str]) -> None:
        if self._is_in_list():
            self._outside, self._pieces = self._pieces, 0
            self._start = self._parser.CurrentByteIndex
        self._path.append(name)
        self._pieces += 1 + len(attributes)
        if self._pieces > self._most or len(self._path) > MAX_DEPTH:
            raise UnsafeXml("it has more elements than any answer has, or deeper ones")

    def _closes(self, name: str) -> None:
        self._path.pop()
        if self._is_in_list():
            self._pieces = self._outside
            self._add(self._start, self._end(name))

    def _end(self, name: str) -> int:
        """Return the end of the element that closes now. expat reports one without an end tag after it."""
        at = self._parser.CurrentByteIndex
        has_tag = self._body.startswith(b"</" + name.encode(), at)
        return self._body.index(b">", at) + 1 if has_tag else at

    def _add(self, start: int, end: int) -> None:
        if end - start > PAGE_BYTES:
            raise UnsafeXml("one thing that it lists is longer than any list of them")
        if self._spans and end - self._spans[-1][0] <= PAGE_BYTES:
            start = self._spans.pop()[0]
        self._spans.append((start, end))

    def _is_in_list(self) -> bool:
        return len(self._path) == 2 and bool(self._parent) and self._path[1].endswith(self._parent)

    def _declares(self, *_: object) -> None:
        raise UnsafeXml("it declares a document type, with which it could grow as it is read")

    def _passes(self, *_: object) -> None:
        """Do nothing: being called keeps expat's position up to date."""
