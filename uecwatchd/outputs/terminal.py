"""Terminals: whether a stream is one, and the library `rich` (an extra) for colours, tables and bars on it.

Names are untrusted: they reach rich only as `Text`, where no markup is read, and after `printable`.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

from uecwatchd.outputs.progress import Snapshot, TrackedProgress
from uecwatchd.outputs.wording import amounts, phrase, time_left
from uecwatchd.system.text import printable

if TYPE_CHECKING:  # the library may be missing
    from rich.console import Console, RenderableType

# In fewer columns than these a bar has no space beside a name.
BAR_COLUMNS = 60
USUAL_SIZE = os.terminal_size((80, 24))
MISSING_RICH = "the library rich is not installed (pip install 'uecwatchd[rich]')"


def is_terminal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell if a stream leads to a terminal that can move its cursor."""
    return stream.isatty() and environ.get("TERM", "dumb") != "dumb"


def size_of(stream: TextIO) -> os.terminal_size:
    """Return the size of a terminal now; 80 by 24 if it is not known, as on a serial line."""
    with suppress(OSError):
        size = os.get_terminal_size(stream.fileno())
        return os.terminal_size((size.columns or USUAL_SIZE.columns, size.lines or USUAL_SIZE.lines))
    return USUAL_SIZE


def rich_console(stream: TextIO, environ: Mapping[str, str]) -> "Console | None":
    """Return rich's console for a terminal, None for any other stream or if the library is missing.

    It is without colours if NO_COLOR is set.
    """
    if not is_terminal(stream, environ):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    no_color = bool(environ.get("NO_COLOR"))
    return Console(file=stream, markup=False, emoji=False, highlight=False, no_color=no_color)


def adapt_size(console: "Console") -> None:
    """Give a console the size of its terminal now. It would ask the terminal of standard input."""
    from rich.console import ConsoleDimensions

    console.size = ConsoleDimensions(*size_of(cast("TextIO", console.file)))


def progress_bar(*, done: int, total: int, speed: float) -> "RenderableType":
    """Return a bar as wide as its place, with percentage, rate and time left behind it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    numbers = [
        *amounts(part=0, done=done, total=total, speed=speed),
        *time_left(done=done, total=total, speed=speed),
    ]
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_row(ProgressBar(total=total, completed=done), Text("  ".join(numbers)))
    return line


def draw_bars(console: "Console", snapshot: Snapshot) -> Sequence[str]:
    """Return a line for each set, as many as have space, with a bar where the amount is known."""
    from rich.console import Group

    # One column stays free: a terminal may start a new line after the last column. The same for lines.
    adapt_size(console)
    columns, shown = console.width - 1, snapshot[: max(1, console.height - 1)]
    widest = max((len(_label(tracked)) for tracked in shown), default=0)
    lines = [_line(tracked, columns=columns, widest=widest) for tracked in shown]
    with console.capture() as captured:
        console.print(Group(*lines), width=columns)
    return captured.get().splitlines()


def _label(tracked: TrackedProgress) -> str:
    return printable(f"{tracked.latest.set.name}: {tracked.latest.stage}")


def _line(tracked: TrackedProgress, *, columns: int, widest: int) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    latest, speed = tracked.latest, tracked.speed
    if not latest.total or columns < BAR_COLUMNS:
        return Text(phrase(latest, speed=speed), no_wrap=True, overflow="ellipsis")
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(width=min(widest, columns * 2 // 5), no_wrap=True, overflow="ellipsis")
    line.add_column(ratio=1)
    line.add_row(Text(_label(tracked)), progress_bar(done=latest.done, total=latest.total, speed=speed))
    return line
