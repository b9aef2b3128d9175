"""The example of a fleet: its files fit each other, and the program reads its configuration."""

import re
from pathlib import Path
from typing import Any

import yaml

from uecwatchd.config.load import load
from uecwatchd.config.sharing import shared_folders

FOLDER = Path(__file__).parents[2] / "etc/examples/fleet"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
BUILDERS = {name: one for name, one in COMPOSE["services"].items() if name.startswith("builder")}
PASSWORD = "uecwatchd_fleet__password"


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return what is mounted in a container, by its place there."""
    return {place: source for source, place, *_ in (one.split(":") for one in service["volumes"])}


def test_the_program_reads_the_configuration(tmp_path: Path) -> None:
    (tmp_path / PASSWORD).write_text("hush\n")
    settings = load(FOLDER / "uecwatchd.toml", environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert shared_folders(settings.spool) == (Path("/srv/images"),)
    assert settings.fleet.dsn
    assert f"host={next(iter(COMPOSE['services']))} " in settings.fleet.dsn.get_secret_value()
    assert settings.fleet.password
    assert settings.fleet.password.get_secret_value() == "hush"
    for service in BUILDERS.values():
        assert {"/srv/images", str(settings.state.dir), "/etc/uecwatchd/uecwatchd.toml"} <= mounts(
            service
        ).keys()


def test_each_host_has_its_name_and_its_own_state_and_all_have_one_folder() -> None:
    hosts = list(BUILDERS.values())
    assert len({one["hostname"] for one in hosts}) == len(hosts) > 1
    assert len({mounts(one)["/var/lib/uecwatchd"] for one in hosts}) == len(hosts)
    assert {mounts(one)["/srv/images"] for one in hosts} == {"images"}
    assert COMPOSE["volumes"]["images"]["driver_opts"]["type"] == "nfs"
    assert all(one["secrets"] == [PASSWORD] for one in COMPOSE["services"].values())


def test_all_volumes_secrets_and_files_are_there() -> None:
    named = {source for one in COMPOSE["services"].values() for source in mounts(one).values()}
    assert {source for source in named if "/" not in source} == COMPOSE["volumes"].keys()
    made_by_hand = {"./cloud"}
    assert all((FOLDER / source).exists() for source in named if "/" in source and source not in made_by_hand)
    assert COMPOSE["secrets"].keys() == {PASSWORD}


def test_the_user_has_one_number_everywhere() -> None:
    steps, image = (FOLDER / "README.md").read_text(), (FOLDER / "Dockerfile").read_text()
    numbers = re.findall(r"--uid (\d+)", steps) + re.findall(r"ARG UID=(\d+)", image)
    assert len(numbers) == 3
    assert len(set(numbers)) == 1
