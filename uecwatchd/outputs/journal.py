"""journald, natively: fields `UEC_SET`, `UEC_EMI`, … have the data of a sentence.

`journalctl -t uecwatchd UEC_SET=karmic` finds them. File names are untrusted: no field may give orders to the
terminal of its reader.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder
from structlog.typing import EventDict, Processor, WrappedLogger

from uecwatchd.events import Kind
from uecwatchd.outputs.console import PRIORITIES
from uecwatchd.system.text import printable

Send = Callable[..., object]  # systemd.journal.send(MESSAGE, **fields)

try:
    from systemd.journal import send as native_send

    journal_send: Send | None = native_send
except ImportError:  # the extra is source only, and everything works without it
    journal_send = None

IDENTIFIER: Final = "uecwatchd"  # a unit's SyslogIdentifier= does not reach native messages

# Made once with `systemd-id128 new`, and never changed: the catalog explains them, and users filter by them.
MESSAGE_IDS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.READY: "c803d43727394a74b0042d8d72102ff1",
        Kind.FOUND: "eea7a613a9da47329c7544a202c9107b",
        Kind.WAITING: "e4f7896ca3864c0dbf9358450686d5c4",
        Kind.WORKING: "36a4b2d0809a48699547819e52189383",
        Kind.BUNDLED: "929c539a24b94796ad0fd1457ae92a9b",
        Kind.UPLOADED: "ce07e4de780e441881b132d79c5f7918",
        Kind.REGISTERED: "ea3ef37076494b86bd895ecf1c996347",
        Kind.ADOPTED: "2c2100411f1c46b48cca1f830e4cd30e",
        Kind.BOOTED: "fbadce320d654d8f8221035c341f0684",
        Kind.CONSOLE: "666d2316fc33469898b037d1622cec90",
        Kind.WITHDRAWN: "3568db3ad917499fbaf0ffe8a1d34537",
        Kind.ROLLED_BACK: "193e4ec1ee2e4358aca70bf8616d0b7d",
        Kind.DONE: "f47edcda86204ff791b518baf3b6e6f1",
        Kind.DEFERRED: "93a6f31b490a422ab35d715a29b50762",
        Kind.REJECTED: "a2a60d7ae7cd4fa0b5feae40029258f6",
        Kind.HALTED: "f594d48a721243a88607dcfa93aa360f",
        Kind.RESUMED: "512a4274e3784645bd2319b90db664d5",
        Kind.LEDGER_LOST: "e5b40f6276544783bd2671da03998cc1",
        Kind.WATCH_LOST: "76e22a642ad34cd98a11c2a0b1e9e3e5",
        Kind.RELOAD: "7ac5db29f3744c5fbf9a04cbcd6ea879",
        Kind.STOPPING: "4b06b756c31946289e8b270f2033b691",
        Kind.ASKED: "f6c7938aca424c788c3ef0b324ff047f",
        Kind.LEFT_OUT: "7d1f0c9be5a64cf7a3f2f7c1e08b6d45",
        Kind.FAULT: "0e6f259708af486ab7c00d8d4a3d25d8",
        Kind.MESSAGE: "dc3923edf8c4482b810ffb8a1f03fd80",
    }
)

CALL_SITE = CallsiteParameterAdder(
    [CallsiteParameter.PATHNAME, CallsiteParameter.LINENO, CallsiteParameter.FUNC_NAME],
    additional_ignores=["uecwatchd.outputs", "uecwatchd.events"],
)


def journald_processors() -> list[Processor]:
    return [structlog.processors.add_log_level, CALL_SITE, to_journal]


def to_journal(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    """Turn an entry into journald's fields, in upper case. Text as bytes may have several lines there."""
    fields = {
        f"UEC_{name.upper()}": _encoded(value) for name, value in entry["fields"].items() if value != ""
    }
    known = {"MESSAGE_ID": MESSAGE_IDS[entry["kind"]]} if entry["kind"] else {}
    return {
        **fields,
        **known,
        "MESSAGE": printable(entry["event"]),
        "PRIORITY": PRIORITIES[entry["level"]],
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "CODE_FILE": entry["pathname"],
        "CODE_LINE": entry["lineno"],
        "CODE_FUNC": entry["func_name"],
    }


def _encoded(value: object) -> bytes:
    """Return a field without control characters.

    The catalog inserts fields, and journalctl prints them raw.
    """
    return "\n".join(printable(line) for line in str(value).split("\n")).encode()


class JournaldLogger:
    """Logger that structlog calls at the end of the chain: each entry is one `send`."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def msg(self, *, MESSAGE: str, **fields: Any) -> None:  # noqa: N803 (journald's spelling)
        with suppress(OSError):  # a failing journal must not stop the work
            self._send(MESSAGE, **fields)

    debug = info = warning = error = msg
