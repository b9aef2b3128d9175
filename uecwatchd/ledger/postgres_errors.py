"""PostgreSQL's errors as sentences.

Those of a connection have no code, so they are known by their words, which a server may have in another
language. Then they are temporary. A sentence shows no password: PostgreSQL repeats the whole text that it
cannot read, so only the name of an unknown parameter is taken from it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg

from uecwatchd.errors import Deferred, Halted, NotPermitted, UecError
from uecwatchd.ledger.api import LedgerAway

SETTING = "dsn under [fleet]"
UNKNOWN_PARAMETER = re.compile(r'invalid (?:connection option|URI query parameter): ?"?(\w+)|option "(\w+)"')
RESUMES = "Nothing is lost, and work resumes by itself once the database can be used."
# What a person has to correct, by words of PostgreSQL's message. Everything else may pass.
TROUBLES_OF_CONNECTING: tuple[tuple[re.Pattern[str], type[Halted], str], ...] = (
    (
        re.compile(r"authentication failed|no password supplied"),
        NotPermitted,
        "Give the role's password as the credential uecwatchd_fleet__password, or let pg_hba.conf trust it.",
    ),
    (
        re.compile(r'role ".*" does not exist|not permitted to log in|no pg_hba\.conf entry'),
        NotPermitted,
        f"Correct the user in {SETTING}, or let the role in: CREATE ROLE … LOGIN, and a line in pg_hba.conf.",
    ),
    (
        re.compile(r'permission denied for database|database ".*" does not exist'),
        Halted,
        f"Correct dbname in {SETTING}, or make the database: createdb -O ROLE NAME",
    ),
    (
        re.compile(r"definition of service|service file"),
        Halted,
        "Add the service to /etc/postgresql-common/pg_service.conf, or to the file named by PGSERVICEFILE.",
    ),
    (
        re.compile(r"invalid .* value|certificate|does not support SSL|could not (read|open|load)"),
        Halted,
        f"Correct {SETTING}, then run `uecwatchd check`.",
    ),
)
# Hints for errors of statements, by SQLSTATE or its class, the first two characters.
HINTS: Mapping[str, str] = {
    "53100": "Free some space on the database's disk; work resumes by itself.",
    "53300": "Raise max_connections of the database; each service takes six at most.",
    "57014": "Look for long transactions in pg_stat_activity; work resumes by itself.",
    "55P03": "Look for long transactions in pg_stat_activity; work resumes by itself.",
    "25006": "Name the primary server, or add target_session_attrs=read-write to dsn under [fleet].",
    "42501": "Let the role read and write all tables of the ledger: GRANT … ON ALL TABLES IN SCHEMA …",
    "XX": "Look at the disk of the database, and restore its last backup.",
}


def wrong_dsn(error: psycopg.ProgrammingError) -> Halted:
    """Return the error for a text that is no list of connection parameters."""
    found = UNKNOWN_PARAMETER.search(str(error))
    name = found and (found[1] or found[2])
    why = f"it has the unknown parameter {name}" if name else "it cannot be read"
    hint = 'Write dsn = "host=HOST dbname=NAME user=ROLE", "service=NAME" or "postgresql://ROLE@HOST/NAME".'
    return Halted(SETTING, why, hint)


def cannot_connect(place: str, error: psycopg.Error) -> UecError:
    """Return the error for a connection that was refused; `place` is the database in words."""
    why = _reason(error)
    what = f"{place}: cannot connect to it"
    for pattern, kind, hint in TROUBLES_OF_CONNECTING:
        if pattern.search(why):
            return kind(what, why, hint)
    if error.pgconn and error.pgconn.needs_password:
        return NotPermitted(what, why, TROUBLES_OF_CONNECTING[0][2])
    return LedgerAway(what, why, RESUMES)


@contextmanager
def translate_database_errors(place: str) -> Iterator[None]:
    """Translate errors of statements: each may pass, because an opened ledger could be used before."""
    try:
        yield
    except psycopg.Error as error:
        state = error.sqlstate or ""
        hint = HINTS.get(state) or HINTS.get(state[:2]) or RESUMES
        kind = LedgerAway if isinstance(error, psycopg.OperationalError) else Deferred
        raise kind(f"{place}: cannot use it", _reason(error), hint) from error


def _reason(error: psycopg.Error) -> str:
    """Return the first line of a message, without what is before the server's own words."""
    lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason was given"]
    return re.sub(r"^connection (failed|is bad): |^.*(FATAL|ERROR): +", "", lines[0]).strip()
