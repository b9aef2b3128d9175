"""The recipe of the demo, and the options that do not go together."""

import os
from collections.abc import Mapping
from typing import Any

import pytest

from uecwatchd.cli.main import main
from uecwatchd.demo.recipe import ANSWERS_NAME, ISO_NAME, RECIPE
from uecwatchd.demo.run import is_stuck
from uecwatchd.intake.sidecar import parse_sidecar


def test_the_recipe_is_a_sidecar_that_names_what_is_made_for_it() -> None:
    recipe = parse_sidecar(RECIPE.encode(), is_json=False).install
    assert recipe
    assert recipe.files == {"iso": ISO_NAME, "answers": ANSWERS_NAME}


def test_the_demo_of_an_installation_takes_no_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--install", "karmic.img"]) == os.EX_USAGE
    assert "--install makes its own files: leave out FILE" in capsys.readouterr().err


LOOK = "2026-11-02T10:00:00Z"


@pytest.mark.parametrize(
    ("row", "has_waited", "stuck"),
    [
        ({"state": "waiting", "report": {"stage": "install", "next_retry": LOOK}}, True, False),
        ({"state": "waiting", "report": {"stage": "test boot", "next_retry": None}}, True, False),
        ({"state": "waiting", "report": {"stage": "", "next_retry": LOOK}}, True, False),
        ({"state": "waiting", "report": {"stage": "", "next_retry": None}}, True, True),
        ({"state": "waiting", "report": {"stage": "", "next_retry": None}}, False, False),
        ({"state": "waiting"}, True, True),
        ({"state": "done", "report": {"stage": ""}}, True, False),
        ({"state": "rejected", "report": {"stage": "test boot"}}, False, True),
    ],
)
def test_the_demo_waits_for_the_service_longer_than_for_a_file(
    row: Mapping[str, Any], *, has_waited: bool, stuck: bool
) -> None:
    assert is_stuck(row, has_waited=has_waited) is stuck
