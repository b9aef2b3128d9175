"""The recipe of the demo, and the options that do not go together."""

import os
from collections.abc import Mapping
from typing import Any

import pytest

from uecwatchd.cli.main import main
from uecwatchd.demo.recipe import ANSWERS_NAME, ISO_NAME, RECIPE
from uecwatchd.demo.run import is_being_installed
from uecwatchd.intake.sidecar import parse_sidecar


def test_the_recipe_is_a_sidecar_that_names_what_is_made_for_it() -> None:
    recipe = parse_sidecar(RECIPE.encode(), is_json=False).install
    assert recipe
    assert recipe.files == {"iso": ISO_NAME, "answers": ANSWERS_NAME}


def test_the_demo_of_an_installation_takes_no_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--install", "karmic.img"]) == os.EX_USAGE
    assert "--install makes its own files: leave out FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "waits"),
    [
        ({"state": "waiting", "report": {"build": {"state": "running"}}}, True),
        ({"state": "waiting", "report": {"build": {"state": "failed"}}}, False),
        ({"state": "waiting", "report": {"build": None}}, False),
        ({"state": "waiting"}, False),
        ({"state": "done", "report": {"build": {"state": "done"}}}, False),
    ],
)
def test_the_demo_waits_for_an_installation_longer_than_for_a_file(
    row: Mapping[str, Any], *, waits: bool
) -> None:
    assert is_being_installed(row) is waits
