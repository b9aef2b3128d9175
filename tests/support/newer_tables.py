"""The tables of a version of the program that is still to come."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from uecwatchd.config.records import FleetSettings
from uecwatchd.ledger.postgres_connections import connect, place_of
from uecwatchd.ledger.postgres_migrations import SCHEMA, PostgresSchema
from uecwatchd.ledger.postgres_schema import TABLES, prepare
from uecwatchd.ledger.state_folder import name_of_home

# A table, an index, and a column in each table that there is.
ADDITIONS = " ".join(
    (
        "CREATE TABLE later (what words PRIMARY KEY);",
        "CREATE INDEX bundles_by_digest ON bundles (sha256);",
        *(f"ALTER TABLE {table} ADD COLUMN later words DEFAULT 'x';" for table in TABLES),
    )
)
ADDING = PostgresSchema((*SCHEMA.steps, ADDITIONS), SCHEMA.least)
# It takes away what this version needs.
TAKING = replace(ADDING, steps=(*ADDING.steps, "ALTER TABLE sets DROP COLUMN stamp CASCADE;"))
TAKING = replace(TAKING, least=len(TAKING.steps))


def bring_up_to_date(fleet: FleetSettings, folder: Path, schema: PostgresSchema) -> None:
    """Migrate a database, as the service of that version does at its start."""
    place = place_of(fleet)
    with closing(connect(place)) as connection:
        prepare(connection, place, home=name_of_home(folder), schema=schema)
