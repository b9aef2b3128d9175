"""Requests to systemd for the environment of a verb. `tests/booted` asks a real one."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from uecwatchd.cli.unit.environment import take_environment
from uecwatchd.cli.unit.systemd import Unit

# Tells like the service that systemd would start, and keeps what it was asked for.
TELLER = '#!/bin/sh\nprintf \'%s\\n\' "$@" >> {}\necho \'[{{"PATH": "/bin"}}, {{}}]\'\n'


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """The properties that systemd is asked for when a verb takes what a unit of these settings has."""
    program, heard = tmp_path / "systemd-run", tmp_path / "heard"
    program.write_text(TELLER.format(heard))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = dict(os.environ)

    def take(**settings: Any) -> list[str]:
        take_environment(Unit("uecwatchd.service", settings))
        lines = heard.read_text().splitlines() if heard.exists() else []
        return [line.removeprefix("--property=") for line in lines if line.startswith("--property=")]

    yield take
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("settings", "properties"),
    [
        ({"ImportCredential": ["uecwatchd*", "x"]}, ["ImportCredential=uecwatchd*", "ImportCredential=x"]),
        (
            {"ImportCredential": ["a*", "b"], "ImportCredentialEx": [["a*", ""], ["b", "uecwatchd_b"]]},
            ["ImportCredential=a*", "ImportCredential=b:uecwatchd_b"],
        ),
        ({"LoadCredential": [["a", "/a"]], "ImportCredential": []}, ["LoadCredential=a:/a"]),
        ({"ImportCredential": []}, []),
    ],
)
def test_credentials_from_the_stores_of_the_host_are_passed_on(
    asked: Callable[..., list[str]], settings: dict[str, Any], properties: list[str]
) -> None:
    assert asked(**settings) == properties
