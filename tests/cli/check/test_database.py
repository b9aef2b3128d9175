"""The check of a ledger in a database: the configuration that names it, and if it can be used."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.postgres import DatabaseServer
from uecwatchd.cli.check.finding import Finding
from uecwatchd.cli.check.host import examine_configuration, examine_state
from uecwatchd.config.records import FleetSettings, Settings, StateSettings
from uecwatchd.ledger import postgres

Of = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        ("dsn = 'host=db dbname=builds user=role'", 0),
        ("dsn = 'postgresql://role@db/builds'", 0),
        ("dsn = 'host=db password=hunter2'", 1),
        ("dsn = 'postgresql://role:hunter2@db/builds'", 1),
        ("dsn = 'service=builds'\npassword = 'hunter2'", 1),
    ],
)
def test_a_password_in_a_configuration_that_all_may_read_is_reported(
    tmp_path: Path, of: Of, lines: str, warned: int
) -> None:
    config = tmp_path / "uecwatchd.toml"
    config.write_text(f"[fleet]\n{lines}\n")
    config.chmod(0o644)
    found = of(list(examine_configuration(Settings(source=config))), "warning")
    assert ["every user of this machine may read it" in one for one in found] == [True] * warned
    assert "hunter2" not in str(found)


def test_a_database_is_tried_and_not_changed(database_server: DatabaseServer, tmp_path: Path) -> None:
    def found() -> list[Finding]:
        return list(examine_state(settings))

    with database_server.database(template="template1") as name:
        fleet = FleetSettings(SecretStr(database_server.dsn(name)))
        settings = Settings(state=StateSettings(tmp_path), fleet=fleet)
        where = f"ledger: database {name} on {database_server.folder}"
        assert [one.what for one in found()] == [f"{where} (no ledger yet)"]
        assert database_server.execute("SELECT to_regclass('ledger')", database=name) == [(None,)]
        postgres.open_ledger(fleet, tmp_path).close()
        assert [one.what for one in found()] == [f"{where} (a ledger of 0 sets)"]
        database_server.execute("UPDATE ledger SET version = 99, least = 98", database=name)
        (bad,) = found()
        assert (bad.level, bad.exit_code) == ("bad", 75)
        with database_server.away():
            (away,) = found()
            assert (away.level, away.exit_code) == ("bad", 75)
            assert "cannot connect to it" in away.what
