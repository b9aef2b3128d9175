"""A server of processes in which one function of the program fails whenever it is called.

It has the program imported, and makes a child of its own for each line of JSON on its standard input:

    {"arguments": ["once"], "config": FILE, "stderr": FILE, "called": FILE or null,
     "breaks": "uecwatchd.ledger.sql_ledger:SqlLedger.put_set", "with": "KeyError"}

The child breaks `breaks`: each call of it raises the exception. Where `called` is a file, nothing breaks, and
the names of all that could be broken and was called are written there. A request to a cloud has the name of
its operation: "ec2:RegisterImage". The server answers with the child's pid, and then with how it ended.

A function is broken in its code object, so that modules that imported it by name are affected as well.
"""

import builtins
import errno
import importlib
import inspect
import os
import pkgutil
import sqlite3
import ssl
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError

import uecwatchd
from uecwatchd.cli import main as cli

# What a library, the interpreter or the system may raise where nobody thought of it.
FAULTS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("planted: \x1b[31mnot a number\n second line"),
    "TypeError": lambda: TypeError("planted: expected str, got NoneType"),
    "KeyError": lambda: KeyError("planted"),
    "AttributeError": lambda: AttributeError("planted: no such attribute"),
    "IndexError": lambda: IndexError("planted: list index out of range"),
    "AssertionError": lambda: AssertionError(),
    "RuntimeError": lambda: RuntimeError("planted: dictionary changed size during iteration"),
    "RecursionError": lambda: RecursionError("planted: maximum recursion depth exceeded"),
    "MemoryError": lambda: MemoryError(),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "planted"),
    "OSError": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "OSError without a number": lambda: OSError("planted"),
    "ssl.SSLError": lambda: ssl.SSLError("planted: unexpected eof while reading"),
    "sqlite3.OperationalError": lambda: sqlite3.OperationalError("planted: unable to open database file"),
    "sqlite3.ProgrammingError": lambda: sqlite3.ProgrammingError(
        "planted: cannot operate on a closed database"
    ),
    "BotoCoreError": lambda: BotoCoreError(),
    "StopIteration": lambda: StopIteration(),
}
BREAKABLE = (
    "uecwatchd.ledger",
    "uecwatchd.intake.spool",
    "uecwatchd.intake.watch",
    "uecwatchd.clouds",
    "uecwatchd.outputs.result_files",
    "uecwatchd.system.wakeup",
    "uecwatchd.service.requests",
    "uecwatchd.service.set_states",
)
# How anything at all is made, shown and ended.
SOUND = ("__init__", "__str__", "__repr__", "__enter__", "__exit__", "close")
# Nothing surrounds the first function of a thread: each guards what it calls.
FIRST = ("uecwatchd.system.wakeup:_listen", "uecwatchd.clouds.exchange_limits:_Exchange.run")


class Breaking:
    """Decision for the stubs in place of functions: called with a function's name, it raises or returns."""

    def __init__(self, name: str, fault: str, called: str) -> None:
        self._name, self._fault = name, FAULTS.get(fault)
        self._called = os.open(called, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if called else -1
        self._seen: set[str] = set()

    def __call__(self, name: str) -> None:
        if self._called >= 0 and name not in self._seen:
            self._seen.add(name)
            os.write(self._called, f"{name}\n".encode())
        if name == self._name and self._fault:
            raise self._fault()


def modules() -> Iterator[types.ModuleType]:
    for found in pkgutil.walk_packages(uecwatchd.__path__, "uecwatchd."):
        if any(found.name == one or found.name.startswith(f"{one}.") for one in BREAKABLE):
            yield importlib.import_module(found.name)


def functions() -> Iterator[tuple[str, types.FunctionType]]:
    for module in modules():
        for _, one in inspect.getmembers(module):
            if inspect.isclass(one) and one.__module__ == module.__name__:
                yield from _methods(module.__name__, one)
            plain = inspect.unwrap(one) if callable(one) else one
            if isinstance(plain, types.FunctionType) and plain.__module__ == module.__name__:
                yield f"{module.__name__}:{plain.__qualname__}", plain


def _methods(module: str, owner: type) -> Iterator[tuple[str, types.FunctionType]]:
    for name, one in vars(owner).items():
        plain = one.fget if isinstance(one, property) else getattr(one, "__func__", one)
        plain = inspect.unwrap(plain) if callable(plain) else plain
        if isinstance(plain, types.FunctionType) and name not in SOUND and plain.__module__ == module:
            yield f"{module}:{plain.__qualname__}", plain


def rig(breaking: Breaking, name: str, function: types.FunctionType) -> None:
    """Have a function ask first. One that closes over something is left as it is."""
    code = function.__code__
    if code.co_freevars:
        return
    sound = types.FunctionType(code, function.__globals__, code.co_name, function.__defaults__)
    sound.__kwdefaults__ = function.__kwdefaults__
    rigged = builtins.__dict__.setdefault("_rigged", {})
    rigged[name] = (breaking, sound)
    source = f"def stub(*a, **k):\n b, f = _rigged[{name!r}]\n b({name!r})\n return f(*a, **k)\n"
    made: dict[str, Any] = {}
    exec(compile(source, "<broken>", "exec"), made)  # noqa: S102 (a name of our own)
    function.__code__ = made["stub"].__code__
    function.__defaults__ = function.__kwdefaults__ = None  # type: ignore[assignment]


def rig_clients(breaking: Breaking) -> None:
    sound = BaseClient._make_api_call

    def ask(self: Any, operation: str, params: Any) -> Any:
        breaking(f"{self.meta.service_model.service_name}:{operation}")
        return sound(self, operation, params)

    BaseClient._make_api_call = ask


def child(order: dict[str, Any]) -> int:
    os.environ["UECWATCHD_CONFIG"] = order["config"]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    os.dup2(os.open(order["stderr"], flags, 0o600), 2)
    os.dup2(2, 1)
    breaking = Breaking(order["breaks"], order["with"], order["called"])
    if order["called"] or ":" in order["breaks"]:
        for name, function in list(functions()):
            if name not in FIRST and (order["called"] or name == order["breaks"]):
                rig(breaking, name, function)
        rig_clients(breaking)
    try:
        return cli.main(order["arguments"])
    finally:
        sys.stderr.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.support.fork_server import serve_lines

    serve_lines(child)
