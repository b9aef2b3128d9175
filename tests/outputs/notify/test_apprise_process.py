"""The process that sends by apprise says why it cannot, and never a piece of an address."""

import json
import subprocess
import sys

import pytest

from uecwatchd.outputs.notify.apprise_process import EX_UNAVAILABLE, MISSING, without_secrets

WITHOUT = """
import sys
sys.modules["apprise"] = None
from uecwatchd.outputs.notify.apprise_process import main
sys.exit(main())
"""


def test_without_the_library_it_says_so() -> None:
    given = json.dumps({"url": "json://example.com"})
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT], input=given, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (EX_UNAVAILABLE, f"{MISSING}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Failed to send to slack.example.com: T0KEN99", "Failed to send to slack.example.com: ***"),
        ("Error for https://api/T0KEN99/p%40ss1/", "Error for https://api/***/***/"),
        ("Login of p@ss1 refused", "Login of *** refused"),
        ("500 Internal error", "500 Internal error"),
    ],
)
def test_pieces_of_an_address_are_taken_out(text: str, expected: str) -> None:
    assert without_secrets(text, "slack://T0KEN99/p%40ss1/#chan?to=") == expected
