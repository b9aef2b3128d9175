"""Terminals: whether a stream is one, and the library `rich` (an extra) for colours, tables and bars on it.

Names are untrusted: they reach rich only as `Text`, where no markup is read, and after `printable`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from uecwatchd.outputs.wording import amounts, time_left

if TYPE_CHECKING:  # the library may be missing
    from rich.console import Console, RenderableType

MISSING_RICH = "the library rich is not installed (pip install 'uecwatchd[rich]')"


def is_terminal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell if a stream leads to a terminal that can move its cursor."""
    return stream.isatty() and environ.get("TERM", "dumb") != "dumb"


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
    return Console(file=stream, markup=False, emoji=False, highlight=False, _environ=environ)


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
