"""Libraries that are optional: each belongs to an extra of the package, and is loaded when it is needed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from uecwatchd.errors import Halted
from uecwatchd.system.text import shell_word


@contextmanager
def optional_library(extra: str, *, what: str) -> Iterator[None]:
    """Import what an extra brings. Raises Halted about `what`, with the command that installs it."""
    try:
        yield
    except ImportError as error:
        install = f"{shell_word(sys.executable)} -m pip install 'uecwatchd[{extra}]'"
        why = f"it needs the extra {extra}, and {error.name or error} is not installed"
        raise Halted(what, why, f"Try: {install}") from None
