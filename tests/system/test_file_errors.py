"""Commands in hints: they go to what is in the way, and a shell takes them as they are."""

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from uecwatchd.bundle.keys import load_certificate
from uecwatchd.clouds.credentials import account
from uecwatchd.clouds.credentials.eucarc import eucarc_source
from uecwatchd.config.load import load
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import NotPermitted
from uecwatchd.intake.spool.safe_open import folder_descriptor

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else and back")
NAME = "a 'b' $(c)"


def open_folder(path: Path) -> None:
    with folder_descriptor(path):
        pass


def read_bundle(path: Path) -> None:
    cloud = CloudSettings("default", ca_bundle=path)
    account.ca_bundle(account.CredentialSources("default", cloud, (account.configured(cloud),)))


READERS: dict[str, Callable[[Path], object]] = {
    "eucarc": lambda path: eucarc_source(path, cloud="default", home=path.parent),
    "certificate": lambda path: load_certificate(path, whose="the cloud's certificate"),
    "ca_bundle": read_bundle,
    "configuration": lambda path: load(path, environ={}),
}


def hint_of(reader: Callable[[Path], object], path: Path) -> NotPermitted:
    with pytest.raises(NotPermitted) as raised:
        reader(path)
    return raised.value


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_text("x")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("name", READERS)
def test_the_proposed_command_makes_a_file_readable_for_our_group(
    closed: Path, name: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("as_nobody")
    error = hint_of(READERS[name], closed)
    os.seteuid(0)
    os.setegid(0)
    words = shlex.split(error.hint.split(": ", 1)[1])
    assert words.count(str(closed)) == 2
    if name != "configuration":  # it names the service's group, which need not be on this machine
        subprocess.run(error.hint.split(": ", 1)[1], shell=True, check=True)  # noqa: S602
        os.setegid(65534)
        os.seteuid(65534)
        assert os.access(closed, os.R_OK, effective_ids=True)


@pytest.mark.parametrize("name", ["eucarc", "certificate", "ca_bundle"])
def test_a_folder_above_a_file_that_is_closed_is_named(
    tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    above = tmp_path / "keys"
    above.mkdir()
    (above / "file").write_text("x")
    request.getfixturevalue("as_nobody")
    os.seteuid(0)
    above.chmod(0o700)
    os.seteuid(65534)
    error = hint_of(READERS[name], above / "file")
    assert str(above) in error.why
    assert "uecwatchd check" in error.hint


def test_a_spool_folder_is_opened_by_the_command_of_its_hint(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spool = tmp_path / "above" / NAME
    spool.mkdir(parents=True)
    spool.chmod(0o700)
    request.getfixturevalue("as_nobody")
    error = hint_of(open_folder, spool)
    assert shlex.split(error.hint.removeprefix("Try: ")).count(str(spool)) == 2


def test_a_spool_folder_below_a_closed_one_is_reached_by_the_command_of_its_hint(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spool = tmp_path / NAME / "spool"
    spool.mkdir(parents=True)
    request.getfixturevalue("as_nobody")
    os.seteuid(0)
    spool.parent.chmod(0o700)
    os.seteuid(65534)
    error = hint_of(open_folder, spool)
    os.seteuid(0)
    subprocess.run(error.hint.removeprefix("Try: "), shell=True, check=True)  # noqa: S602
    os.seteuid(65534)
    open_folder(spool)
