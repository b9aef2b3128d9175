"""The statements of the ledger as PostgreSQL spells them.

They are written in the SQL of SQLite. What is in `SPELLINGS`, and the marks for values, differ. And a table
with rows of several hosts is read and changed by the view that has those of this host; see
`postgres_migrations`. Rows are inserted into the table itself, which knows the host by default.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import count

from uecwatchd.ledger.changes import Statement
from uecwatchd.ledger.postgres_migrations import TABLES_OF_HOSTS

# JSON is in columns of text, as the program writes it: PostgreSQL refuses some of it as JSON, such as half
# characters in the names of files. So a value is cut out of the text. It needs a text without quotes, such as
# an id or a digest, and a key that no other object in the document has before it.
SPELLINGS = (
    (
        re.compile(r"json_extract\((\w+), '\$\.(\w+)'\)"),
        r"""split_part(split_part(\1, '"\2": "', 2), '"', 1)""",
    ),
    # PostgreSQL takes the type of a value from its first place, and has none for a mere NULL.
    (re.compile(r"(\?\d) IS NULL OR (\w+ = \1)"), r"\2 OR \1 IS NULL"),
    (re.compile(r"json_group_array\("), "json_agg("),
    (
        re.compile(r"is_claimed\((\w+), (\w+)\)"),
        r"EXISTS (SELECT FROM claims WHERE claim = \1 || '/' || \2)",
    ),
    (re.compile(r"json_object\("), "json_build_object("),
)
IN_LIST = re.compile(r"json_extract\((\w+), '\$\[(\d)\]\.(\w+)'\)")
MARK = re.compile(r"\?(\d*)")
OF_HOST = re.compile(rf"\b(FROM|JOIN|UPDATE) ({'|'.join(TABLES_OF_HOSTS)})\b( AS \w+)?")
# Of a statement that reads the rows of all hosts: what belongs to one set is of one host.
OF_FLEET = (
    (re.compile(r"(\w+)\.folder = (\w+)\.folder"), r"\1.host = \2.host AND \1.folder = \2.folder"),
    (re.compile(r"SELECT folder, name FROM"), "SELECT host, folder, name FROM"),
    (re.compile(r"USING \(folder, name\)"), "USING (host, folder, name)"),
)
IGNORING = "INSERT OR IGNORE INTO"
CONFLICTING = re.compile(r"(INSERT INTO (\w+) .* ON CONFLICT) \([^)]*\)")
VALUE = re.compile(r"\$(\d+)")
REPLACING = re.compile(r"INSERT OR REPLACE INTO (\w+) \((.*?)\)")


# The program has some eighty statements; one with lists of values has as many forms as there are lengths.
@lru_cache(maxsize=500)
def to_postgres(statement: str, *, of_fleet: bool = False) -> str:
    """Return a statement of SQLite in the SQL of PostgreSQL; one `of_fleet` reads the rows of all hosts."""
    for pattern, spelling in (*SPELLINGS, *(OF_FLEET if of_fleet else ())):
        statement = pattern.sub(spelling, statement)
    if not of_fleet:
        statement = OF_HOST.sub(
            lambda found: f"{found[1]} own_{found[2]}{found[3] or f' AS {found[2]}'}", statement
        )
    statement = CONFLICTING.sub(r"\1 ON CONSTRAINT \2_pkey", statement)
    statement = IN_LIST.sub(_from_list, statement)
    numbers = count(1)
    statement = MARK.sub(lambda mark: f"${mark[1] or next(numbers)}", statement)
    if IGNORING in statement:
        return f"{statement.replace(IGNORING, 'INSERT INTO')} ON CONFLICT DO NOTHING"
    if found := REPLACING.match(statement):
        return f"INSERT INTO {statement[found.start(1) :]} {_on_conflict(found[1], found[2])}"
    return statement


def _from_list(found: re.Match[str]) -> str:
    """Return the expression for the value of an object in a list; each object there has the key once."""
    return f"""split_part(split_part({found[1]}, '"{found[3]}": "', {int(found[2]) + 2}), '"', 1)"""


def _on_conflict(table: str, columns: str) -> str:
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns.split(", "))
    return f"ON CONFLICT ON CONSTRAINT {table}_pkey DO UPDATE SET {changes}"


def in_one(statements: Sequence[Statement]) -> Statement:
    """Return several statements as one, which does all or nothing. The last of them gives the answer.

    None of them sees what another one writes.
    """
    spelt: list[str] = []
    values: list[object] = []
    for statement, given in statements:
        spelt.append(_numbered_from(len(values), to_postgres(statement)))
        values += given
    *parts, last = spelt
    named = ", ".join(f"part_{number} AS ({part})" for number, part in enumerate(parts))
    return f"WITH {named} {last}" if parts else last, tuple(values)


def _numbered_from(before: int, statement: str) -> str:
    """Return a statement whose values come after so many others."""
    return VALUE.sub(lambda found: f"${int(found[1]) + before}", statement)
