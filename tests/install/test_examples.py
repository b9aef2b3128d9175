"""The recipes in etc/examples: each is a recipe, and what it names as answers is beside it."""

import tomllib
from pathlib import Path

import pytest

from uecwatchd.install.recipe import InstallRecipe, name_for, read_recipe

EXAMPLES = Path(__file__).parents[2] / "etc/examples"
RECIPES = sorted(EXAMPLES.glob("install-*.toml"))
# The overlay of Alpine is packed by its user.
MADE_BY_HAND = {"install-alpine.apkovl.tar.gz"}


def recipe(path: Path) -> InstallRecipe:
    return read_recipe(tomllib.loads(path.read_text())["install"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_example_is_a_recipe(path: Path) -> None:
    answers = recipe(path).answers
    assert answers is None or answers in MADE_BY_HAND or (EXAMPLES / answers).is_file()


@pytest.mark.parametrize(
    ("name", "medium", "file"),
    [
        ("debian", "initrd", "preseed.cfg"),
        ("ubuntu", "cidata", "user-data"),
        ("fedora", "disk", "ks.cfg"),
        ("alpine", "disk", "install-alpine.apkovl.tar.gz"),
        ("windows-2003", "floppy", "WINNT.SIF"),
        ("windows-xp", "floppy", "WINNT.SIF"),
    ],
)
def test_the_answers_of_each_reach_its_installer(name: str, medium: str, file: str) -> None:
    found = recipe(EXAMPLES / f"install-{name}.toml")
    assert found.medium == medium
    assert name_for(found.answers or "", medium) == file


def test_windows_xp_gets_its_driver_by_a_second_disk() -> None:
    found = recipe(EXAMPLES / "install-windows-xp-scsi.toml")
    assert (found.disk_bus, found.second_disk) == ("ide", "scsi")
