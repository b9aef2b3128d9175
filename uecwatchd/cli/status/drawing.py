"""The answer of `status` as a terminal shows it: a table with colours and bars.

This module needs the library rich. All text from outside is `Text` after `printable`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rich.console import Group, OverflowMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from uecwatchd.cli.status.answer import StatusAnswer
from uecwatchd.cli.status.rows import Row, speed_of, work_words
from uecwatchd.cli.status.text import HEADING, NAME_COLUMNS, details
from uecwatchd.ledger.standing import PARTLY
from uecwatchd.outputs.terminal import progress_bar
from uecwatchd.outputs.wording import moment
from uecwatchd.system.text import printable

STYLES = {
    "done": "green",
    "working": "bold cyan",
    "queued": "cyan",
    "new": "cyan",
    "waiting": "blue",
    "deferred": "yellow",
    PARTLY: "yellow",
    "rejected": "red",
    "halted": "bold red",
    "held": "magenta",
    "withdrawn": "magenta",
    "absent": "dim",
    "misfit": "dim",
    "ignored": "dim",
}
# If there is no space for all rows, those come first that somebody watches for. Others are as `waiting`.
FIRST = ("working", "halted", "rejected", "deferred", PARTLY, "held", "queued", "new")
LAST = ("misfit", "done", "ignored")
# In fewer columns than these a third column has no space for a sentence.
TABLE_COLUMNS = 60
STATE_COLUMNS = 9
LEFT_OUT = "and {} more, for which there is no space"


def draw(answer: StatusAnswer, *, columns: int, one_line: bool = False) -> RenderableType:
    """Return the rows as something that rich prints. With `one_line` no sentence is continued."""
    if answer.asked:
        return Group(*(part for row in answer.rows for part in _details(row, answer.asked)))
    draw_rows = _table if columns >= TABLE_COLUMNS else _blocks
    parts: list[RenderableType] = []
    for heading, rows in answer.groups():
        parts += [_flowing(Text(printable(heading), "bold"), one_line=one_line)] if heading else []
        parts.append(draw_rows(rows, columns, one_line=one_line))
    return Group(*parts)


def draw_frame(answer: StatusAnswer, *, columns: int, lines: int, footer: str) -> RenderableType:
    """Return a picture for a terminal of this size: messages, as many rows as fit, and how many do not."""
    notes = [Text(printable(text), "red") for text in answer.troubles]
    notes += [Text(printable(text)) for text in answer.remarks]
    last = f"{summary(answer.rows)}{moment(answer.moment)} UTC{footer}"
    rows = answer.rows
    if not answer.asked:
        # Each group has a heading, and one for its columns.
        headings = sum(2 if heading else 1 for heading, _ in answer.groups())
        taken = sum(-(-len(text) // columns) for text in (*map(str, notes), LEFT_OUT, last))
        rows = rows_that_fit(answer.rows, lines=lines - taken - headings - 1, columns=columns)
    shown = replace(answer, rows=rows)
    parts = [draw(shown, columns=columns, one_line=True)] if rows else []
    if hidden := len(answer.rows) - len(rows):
        parts.append(Text(LEFT_OUT.format(hidden), "dim"))
    return Group(*notes, *parts, Text(""), Text(last, "dim", overflow="fold"))


def rows_that_fit(rows: Sequence[Row], *, lines: int, columns: int) -> tuple[Row, ...]:
    """Return as many rows as have space, the most interesting ones, in the order that they had."""
    narrow = columns < TABLE_COLUMNS
    chosen: set[int] = set()
    for number in sorted(range(len(rows)), key=lambda number: _order(rows[number].state)):
        lines -= 1 + narrow + _has_bar(rows[number])
        if lines < 0:
            break
        chosen.add(number)
    return tuple(row for number, row in enumerate(rows) if number in chosen)


def summary(rows: Iterable[Row]) -> str:
    """Return how many rows there are of each state, the most interesting state first."""
    counts = Counter(row.state for row in rows)
    words = [f"{counts[state]} {state}" for state in sorted(counts, key=_order)]
    return f"{', '.join(words)}; " if words else ""


def _order(state: str) -> int:
    if state in LAST:
        return len(FIRST) + 1 + LAST.index(state)
    return FIRST.index(state) if state in FIRST else len(FIRST)


# --- rows -------------------------------------------------------------------------------------------------


def _table(rows: Iterable[Row], columns: int, *, one_line: bool) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True, header_style="bold")
    name, state, detail = HEADING
    overflow: OverflowMethod = "ellipsis" if one_line else "fold"
    most = min(NAME_COLUMNS, columns * 2 // 5)
    table.add_column(name, max_width=most, no_wrap=one_line, overflow=overflow)
    table.add_column(state, width=STATE_COLUMNS)
    table.add_column(detail, ratio=1, no_wrap=one_line, overflow=overflow)
    for row in rows:
        table.add_row(Text(printable(row.name)), _state(row), Group(*_detail(row)))
    return table


def _blocks(rows: Iterable[Row], _columns: int, *, one_line: bool) -> RenderableType:
    """Return the rows for a narrow terminal: name and state, and the sentence below them."""
    parts: list[RenderableType] = []
    for row in rows:
        heading = Text.assemble(Text(printable(row.name)), "  ", _state(row))
        parts.append(_flowing(heading, one_line=one_line))
        words, *bar = _detail(row)
        parts.append(Padding(Group(_flowing(words, one_line=one_line), *bar), (0, 0, 0, 2)))
    return Group(*parts)


def _flowing(text: Text, *, one_line: bool) -> Text:
    """Return the text continued on more lines, or cut off at the end of its line."""
    text.no_wrap, text.overflow = one_line, "ellipsis" if one_line else "fold"
    return text


def _state(row: Row) -> Text:
    return Text(row.state, STYLES.get(row.state, ""))


def _detail(row: Row) -> tuple[Text, *tuple[RenderableType, ...]]:
    return Text(printable(work_words(row))), *_bar(row)


def _details(row: Row, asked: str) -> Iterator[RenderableType]:
    heading = f"{row.name}: {row.state}"
    for line in details(replace(row, detail=work_words(row)), asked=asked):
        text = Text(printable(line), overflow="fold")
        if line == heading:
            text.stylize(STYLES.get(row.state, ""), len(text) - len(row.state))
        yield text
    yield from (Padding(bar, (0, 0, 0, 2)) for bar in _bar(row))


def _has_bar(row: Row) -> bool:
    return row.progress is not None and row.progress.total > 0


def _bar(row: Row) -> Iterator[RenderableType]:
    """Yield the bar of a row whose progress is known in bytes."""
    progress = row.progress
    if progress and progress.total:
        yield progress_bar(done=progress.done, total=progress.total, speed=speed_of(progress))
