"""The whole answer of `status` at one moment: rows, the messages beside them, the exit code."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from uecwatchd.cli.status.rows import Row, about
from uecwatchd.cli.status.survey import Survey
from uecwatchd.config.records import Settings


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """An answer about all names, or about the one that was asked for.

    `troubles` come before the rows, `remarks` behind them. `moment` is in seconds of the epoch.
    """

    moment: float
    rows: tuple[Row, ...]
    folders: int  #: number of spool folders
    asked: str | None = None  #: name of a set or a file
    troubles: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    exit_code: int = os.EX_OK
    host: str = ""  #: name of this host, where several have one ledger

    @property
    def is_unknown(self) -> bool:
        """True if there is nothing with the name."""
        return self.exit_code == os.EX_NOINPUT and not self.rows

    def groups(self) -> Iterator[tuple[str, tuple[Row, ...]]]:
        """Yield a heading for each folder, with its rows. The only folder of the only host has none."""
        if self.folders == 1 and not self.host:
            yield "", self.rows
            return
        for folder, found in groupby(self.rows, key=lambda row: row.id.of_host(self.host).folder):
            rows = tuple(found)
            words = f" ({rows[0].host_words})" if rows[0].host_words else ""
            yield f"{folder}{words}:", rows


def make_answer(found: Survey, settings: Settings, asked: str | None) -> StatusAnswer:
    """Return the answer that a survey gives about all names, or about one."""
    answer = StatusAnswer(
        found.known.now,
        about(found.rows, asked, host=found.known.host) if asked else found.rows,
        len(settings.spool.folders),
        asked,
        tuple(f"uecwatchd: {trouble}" for trouble in found.troubles),
        host=found.known.host,
    )
    return _with_remarks(answer, found, settings)


def _with_remarks(answer: StatusAnswer, found: Survey, settings: Settings) -> StatusAnswer:
    if answer.asked and not answer.rows and not found.troubles:
        sentence = f"uecwatchd: there is nothing named {answer.asked} in the spool folders"
        return replace(answer, remarks=(sentence,), exit_code=os.EX_NOINPUT)
    remarks = []
    if not answer.rows and not found.troubles:
        remarks.append("The spool folders are empty.")
    if found.left_out:
        left = f"{found.left_out} sets of other hosts, done more than a day ago, are left out"
        remarks.append(f"{left}: --host NAME shows all of a host.")
    own = (row for row in answer.rows if not row.id.is_elsewhere)
    if not found.known.alive and any(row.needs_daemon for row in own):
        remarks.append(f"No daemon is running on {settings.state.dir}: no work is done until one runs.")
    code = max((trouble.exit_code for trouble in found.troubles), default=os.EX_OK)
    return replace(answer, remarks=tuple(remarks), exit_code=code)
