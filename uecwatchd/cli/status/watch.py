"""`status --watch`: the answer again and again, until Ctrl-C.

On a terminal it is one changing picture, if the library rich is there. Elsewhere the plain lines are printed
again.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal

from uecwatchd.cli.output import flush, put, say, written
from uecwatchd.cli.status.answer import StatusAnswer
from uecwatchd.cli.status.verb import show
from uecwatchd.errors import UecError
from uecwatchd.outputs.terminal import MISSING_RICH, adapt_size, is_terminal, rich_console
from uecwatchd.outputs.wording import moment
from uecwatchd.system.signals import handle_signals, handle_stop_signals

if TYPE_CHECKING:
    from rich.console import Console

Wake = Literal["end", "draw"]
# A look at ten thousand files takes a second, and should not take more than a quarter of a processor.
PAUSES_PER_LOOK = 3.0


def watch(look: Callable[[], StatusAnswer], *, every_seconds: float) -> int:
    """Show the answer every so many seconds, until a signal ends it. Returns the last exit code."""
    answer = look()
    if answer.is_unknown:
        return show(answer, in_json=False)
    wakes = SimpleQueue[Wake]()
    console = rich_console(sys.stdout, os.environ)
    restore = partial(_restore, console) if console else flush
    # A look at a file server that does not answer could hang for hours.
    handle_stop_signals(partial(wakes.put, "end"), code=os.EX_TEMPFAIL, last=restore)
    if console:
        handle_signals([signal.SIGWINCH], partial(wakes.put, "draw"))
        footer = f", every {every_seconds:g} s, Ctrl-C ends"
        with console.screen():
            answer = repeat(look, answer, partial(_draw, console, footer), wakes, every_seconds)
        return show(answer, in_json=False)
    if is_terminal(sys.stdout, os.environ):
        say(f"It is printed again and again: {MISSING_RICH}.")
    return repeat(look, answer, _print, wakes, every_seconds).exit_code


def repeat(
    look: Callable[[], StatusAnswer],
    answer: StatusAnswer,
    draw: Callable[[StatusAnswer], None],
    wakes: "SimpleQueue[Wake]",
    every_seconds: float,
) -> StatusAnswer:
    """Draw an answer, then new ones every so many seconds, until `wakes` says "end". Returns the last one."""
    pause = every_seconds
    while True:
        draw(answer)
        if _next(wakes, pause) == "end":
            return answer
        began = time.monotonic()
        answer = _look_again(look, answer)
        pause = max(every_seconds, PAUSES_PER_LOOK * (time.monotonic() - began))


def _next(wakes: "SimpleQueue[Wake]", seconds: float) -> Wake:
    try:
        return wakes.get(timeout=seconds)
    except Empty:
        return "draw"


def _look_again(look: Callable[[], StatusAnswer], before: StatusAnswer) -> StatusAnswer:
    """Return a new answer, or the one before with the error that stood in its way."""
    try:
        return look()
    except UecError as error:
        return replace(before, troubles=(f"uecwatchd: {error}",), exit_code=error.exit_code)


def _print(answer: StatusAnswer) -> None:
    put(f"{moment(answer.moment)} UTC")
    show(answer, in_json=False)
    put("")
    flush()


def _restore(console: "Console") -> None:
    """Leave the picture, where the process cannot end in the usual way."""
    console.set_alt_screen(False)
    console.show_cursor()


def _draw(console: "Console", footer: str, answer: StatusAnswer) -> None:
    from rich.control import Control
    from rich.screen import Screen

    from uecwatchd.cli.status.drawing import draw_frame

    adapt_size(console)
    picture = draw_frame(answer, columns=console.width, lines=console.height, footer=footer)
    with written():
        console.control(Control.home())
        console.print(Screen(picture), end="")
