"""The schema of the ledger in PostgreSQL: made, migrated and checked when the ledger is opened.

The rows of a host belong to one state directory of one machine: its sets are the files there. Another machine
of that name would take them for removed, and two would register each set twice. So a second one is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from uecwatchd.errors import Deferred, Halted, NotPermitted
from uecwatchd.ledger.postgres_connections import DatabasePlace, TimedConnection
from uecwatchd.ledger.postgres_errors import translate_database_errors
from uecwatchd.ledger.postgres_migrations import (
    POSTGRES_MIGRATIONS,
    SCHEMA,
    TABLES_OF_HOSTS,
    VIEWS,
    PostgresSchema,
)
from uecwatchd.system import failpoints

# For the administrator, in psql.
GIVE_AWAY = "give its rows away: UPDATE hosts SET home = '' WHERE host ="
# One process makes or changes the tables at a time. A number that no other program is likely to use.
MIGRATION_LOCK = 0x75656377
TABLES = tuple(re.findall(r"CREATE TABLE (\w+)", " ".join(POSTGRES_MIGRATIONS)))
RELATIONS = (*TABLES, *(f"own_{table}" for table in TABLES_OF_HOSTS))
LACKING = """
SELECT name, privilege FROM unnest($1::text[]) AS name, unnest($2::text[]) AS privilege
WHERE NOT has_table_privilege(to_regclass(name), privilege) ORDER BY name, privilege LIMIT 1
"""
TAKE_ROWS = """
INSERT INTO hosts (host, home) VALUES ($1, $2) ON CONFLICT (host) DO UPDATE SET home = excluded.home
"""
BURY = "UPDATE sessions SET ended = clock_timestamp() WHERE ended IS NULL AND lease_until < clock_timestamp()"
COLUMNS_OF_SESSIONS = """
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('sessions') AND attnum > 0 AND NOT attisdropped
"""
OTHERS = "SELECT host, steps FROM sessions WHERE ended IS NULL AND host <> $1 ORDER BY host"
OTHERS_WITHOUT_STEPS = (
    "SELECT host, 0 AS steps FROM sessions WHERE ended IS NULL AND host <> $1 ORDER BY host"
)
NOTE_VERSION = "INSERT INTO ledger (version, least) VALUES ($1, $2)"
# A large table takes long. But other hosts wait behind a lock that is waited for.
PATIENCE = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '5s'"
PRESENT = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL LIMIT 1"


@dataclass(frozen=True, slots=True)
class FoundTables:
    """The tables in a database, by the number of steps of their making; 0 if there are none."""

    version: int = 0
    least: int = 0  #: steps that a program has to know to use them
    owner: str = ""  #: of the rows of this host


def examine(
    connection: TimedConnection, place: DatabasePlace, *, home: str, schema: PostgresSchema = SCHEMA
) -> FoundTables:
    """Return what the database has; nothing is changed.

    Raises NotPermitted or Halted if this host cannot use them, or Deferred.
    """
    with translate_database_errors(place.words):
        _check_encoding(connection, place)
        # In this order: another process may be about to make them all.
        present = connection.execute(PRESENT, [list(TABLES)]).fetchone()
        tables = _find_tables(connection, place)
        if present and tables.version == 0:
            raise _other_program(place, f"it has a table {present['name']} and no version")
        _check_usable(place, tables, home=home, schema=schema)
        if tables.version == 0:
            _check_schema(connection, place)
        else:
            _check_rights(connection, place, TABLES if tables.version < len(schema.steps) else RELATIONS)
    return tables


def prepare(
    connection: TimedConnection, place: DatabasePlace, *, home: str, schema: PostgresSchema = SCHEMA
) -> None:
    """Make or migrate the tables, and give them to this host. Raises NotPermitted, Halted or Deferred."""
    tables = examine(connection, place, home=home, schema=schema)
    with translate_database_errors(place.words):
        if tables.version < len(schema.steps) or not tables.owner:
            _migrate(connection, place, home, schema)


def is_readable(connection: TimedConnection, place: DatabasePlace, *, home: str) -> bool:
    """Return True if there is a ledger to be read, False if there is none yet. Raises as `prepare` does."""
    tables = examine(connection, place, home=home)
    if 0 < tables.version < len(SCHEMA.steps):
        raise _older_version(place, tables.version)
    return tables.version > 0


def _find_tables(connection: TimedConnection, place: DatabasePlace) -> FoundTables:
    found = connection.execute("SELECT to_regclass('ledger') IS NOT NULL AS found").fetchone()
    if not found or not found["found"]:
        return FoundTables()
    try:
        row = connection.execute("SELECT * FROM ledger").fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise _lacking(place, "SELECT", "ledger") from error
    if row is None:
        return FoundTables()
    if "version" not in row:
        raise _other_program(place, "its table ledger has no version")
    if "home" in row:  # of the version that had one host
        return FoundTables(row["version"], owner=row["home"])
    least = row["least"] if "least" in row else row["version"]  # without it, one version alone reads them
    return FoundTables(row["version"], least, home_of(connection, place, place.host) or "")


def home_of(connection: TimedConnection, place: DatabasePlace, host: str) -> str | None:
    """Return the machine that the rows of a host belong to, empty if given away; None without such a host."""
    with translate_database_errors(place.words):
        row = connection.execute("SELECT home FROM hosts WHERE host = $1", [host]).fetchone()
    return str(row["home"]) if row else None


def _migrate(connection: TimedConnection, place: DatabasePlace, home: str, schema: PostgresSchema) -> None:
    """Migrate in one transaction, so that other processes see the old or the new version."""
    # Until the connection ends. A lock within the transaction is too late: what it knows of tables is older.
    connection.execute("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK])
    try:
        with failpoints.effect("bring the ledger up to date"), connection.transaction():
            tables = _find_tables(connection, place)
            _check_usable(place, tables, home=home, schema=schema)  # another process may have been quicker
            if tables.version < len(schema.steps):
                _check_no_older_works(connection, place, schema)
                connection.execute(PATIENCE.encode())
                for step in schema.steps[tables.version :]:
                    connection.execute(step.encode())
                connection.execute(VIEWS.encode())
                connection.execute("DELETE FROM ledger")
                connection.execute(NOTE_VERSION, [len(schema.steps), schema.least])
            connection.execute(TAKE_ROWS, [place.host, home])
    except psycopg.errors.InsufficientPrivilege as error:
        raise _may_not_create(place, str(error).splitlines()[0]) from error
    except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject) as error:
        raise _other_program(place, str(error).splitlines()[0]) from error


def _check_no_older_works(connection: TimedConnection, place: DatabasePlace, schema: PostgresSchema) -> None:
    """Check that no service on another host is too old to use the new tables."""
    columns = {row["attname"] for row in connection.execute(COLUMNS_OF_SESSIONS).fetchall()}
    if not columns:
        return
    # A host without a lease is not waited for. If it comes back, it begins again, and finds the new version.
    connection.execute(BURY)
    rows = connection.execute(OTHERS if "steps" in columns else OTHERS_WITHOUT_STEPS, [place.host])
    if running := [row["host"] for row in rows if row["steps"] < schema.least]:
        raise Deferred(
            f"{place.words}: its ledger is of an older version",
            f"uecwatchd of that version runs on {', '.join(running)}",
            "It is brought up to date when that has ended. Install the new version there, too.",
        )


def _check_usable(place: DatabasePlace, tables: FoundTables, *, home: str, schema: PostgresSchema) -> None:
    if tables.version > len(schema.steps) < tables.least:
        raise _newer_version(place, tables, schema)
    if tables.owner not in ("", home):
        raise _other_home(place, tables.owner)


def _check_encoding(connection: TimedConnection, place: DatabasePlace) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise Halted(
            f"{place.words}: its encoding is {encoding}",
            "names of files may have any character, and only UTF8 has them all",
            "Make another database: createdb -E UTF8 -T template0 NAME",
        )


def _check_schema(connection: TimedConnection, place: DatabasePlace) -> None:
    """Check that the tables can be made."""
    row = connection.execute(
        "SELECT current_schema() AS name, has_schema_privilege(current_schema(), 'CREATE') AS permitted"
    ).fetchone()
    if row and row["name"] is None:
        raise _may_not_create(place, "no schema of its search_path exists")
    if row and not row["permitted"]:
        raise _may_not_create(place, f"it lacks the right CREATE on the schema {row['name']}")


def _check_rights(connection: TimedConnection, place: DatabasePlace, names: Sequence[str]) -> None:
    """Check the rights on the tables and views that exist; an older version has fewer."""
    needed = ["SELECT"] if place.reading else ["SELECT", "INSERT", "UPDATE", "DELETE"]
    if lacking := connection.execute(LACKING, [list(names), needed]).fetchone():
        raise _lacking(place, lacking["privilege"], lacking["name"])


def _lacking(place: DatabasePlace, privilege: str, table: str) -> NotPermitted:
    return NotPermitted(
        f"{place.words}: this role may not use the ledger",
        f"it lacks the right {privilege} on the table {table}",
        "Connect as the role that made the tables, or as that role: GRANT SELECT, INSERT, UPDATE, DELETE ON"
        " ALL TABLES IN SCHEMA … TO …",
    )


def _may_not_create(place: DatabasePlace, why: str) -> NotPermitted:
    return NotPermitted(
        f"{place.words}: this role may not make the tables of the ledger",
        why,
        "Let the role own the database (ALTER DATABASE … OWNER TO …), or give it a schema of its name: CREATE"
        " SCHEMA AUTHORIZATION …",
    )


def _newer_version(place: DatabasePlace, tables: FoundTables, schema: PostgresSchema) -> Deferred:
    return Deferred(
        f"{place.words}: its ledger is of version {tables.version}",
        f"this uecwatchd knows {len(schema.steps)}, and at least {tables.least} is needed",
        "Install the newer uecwatchd here, too. This host waits until then; never delete the ledger.",
    )


def _older_version(place: DatabasePlace, version: int) -> Halted:
    return Halted(
        f"{place.words}: its ledger is of version {version}",
        f"this uecwatchd reads version {len(SCHEMA.steps)}",
        "Start the service of this version once: it brings the ledger up to date.",
    )


def _other_program(place: DatabasePlace, why: str) -> Halted:
    return Halted(
        f"{place.words}: its tables are not those of a ledger",
        why,
        "Name an empty database by dsn under [fleet], or a schema of its own: options=-csearch_path=NAME",
    )


def _other_home(place: DatabasePlace, owner: str) -> Halted:
    return Halted(
        f"{place.words}: its host {place.host} is another machine or state directory",
        f"it is {owner}, and two with the same rows would register each set twice",
        "Give this one another name, by host under [fleet]. If the spool folders have moved here, and"
        f" uecwatchd is stopped there for good, {GIVE_AWAY} '{place.host}'.",
    )
