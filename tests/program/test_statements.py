"""Statements for each set in the database of a fleet, by its server; see also `tests/bench/fleet.py`."""

import pytest

from tests.support.host import Host
from tests.support.postgres import DatabaseServer
from uecwatchd.demo.material import RealSet

pytestmark = pytest.mark.exhaustive

# For a set whose kernel and ramdisk are registered. A hundred hosts share one database.
MOST_STATEMENTS = 20
# For one that is the first with its kernel and ramdisk.
MOST_OF_FIRST = 40
SETS = 6
# The lease and the progress: how many there are depends on how busy the machine is.
BY_THE_CLOCK = "UPDATE sessions SET lease_until|advances"


def test_a_set_costs_the_database_few_statements(
    host: Host, database_server: DatabaseServer, small_set: RealSet
) -> None:
    with database_server.database() as name:
        host.configure(f'{host.config.read_text()}\n[fleet]\ndsn = "{database_server.dsn(name)}"\n')

        def cost() -> int:
            before = database_server.count_statements(name, but=BY_THE_CLOCK)
            ended = host.run("once")
            assert ended.returncode == 0, ended.stderr
            return database_server.count_statements(name, but=BY_THE_CLOCK) - before

        cost()
        nothing = cost()
        host.drop_set(small_set, "first")
        first = cost() - nothing
        drop_others(host, small_set)
        each = (cost() - nothing) / SETS
        assert len(host.cloud.images) == 3 + SETS
        assert first <= MOST_OF_FIRST
        assert each <= MOST_STATEMENTS


def drop_others(host: Host, made: RealSet) -> None:
    """Drop sets with machine images of their own, and with copies of one kernel and one ramdisk."""
    for number in range(SETS):
        name = f"set-{number}"
        host.drop_set(made, name)
        with (host.spool / f"{name}.img").open("r+b") as machine:
            machine.write(b"%d" % number)  # in front of the file system
