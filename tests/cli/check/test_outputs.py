"""Findings of `check` about the folders for the page and the metrics."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from uecwatchd.cli.check.finding import Finding
from uecwatchd.cli.check.outputs import examine_output
from uecwatchd.cli.check.unit import needs
from uecwatchd.cli.unit.path_access import Need
from uecwatchd.config.records import OutputSettings, Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "page"
    made.mkdir(mode=0o755)
    return made


@pytest.mark.parametrize("setting", ["outputs.page", "outputs.metrics"])
def test_a_folder_that_can_be_used_is_well_and_stays_empty(folder: Path, setting: str) -> None:
    assert list(examine_output(setting, folder)) == [Finding("ok", f"{setting}: {folder}")]
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_cannot_read_is_a_warning(folder: Path) -> None:
    folder.chmod(0o750)
    (finding,) = examine_output("outputs.page", folder)
    assert (finding.level, finding.hint) == ("warning", f"If their group cannot either: chmod o+rx {folder}")


def missing(folder: Path) -> None:
    folder.rmdir()


def no_folder(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


def closed(folder: Path) -> None:
    folder.chmod(0o555)


@pytest.mark.parametrize(
    ("break_it", "words", "code"),
    [
        (missing, "there is no such folder. Make it: install -d -o nobody -m 0755", 75),
        (no_folder, "Not a directory", 75),
        (closed, "Permission denied. Let the service's user write there: setfacl -m u:nobody:rwx", 77),
    ],
)
def test_a_folder_that_cannot_be_used_is_bad(
    folder: Path, as_nobody: None, break_it: Callable[[Path], None], words: str, code: int
) -> None:
    os.seteuid(0)
    break_it(folder)
    os.seteuid(65534)
    (finding,) = examine_output("outputs.metrics", folder)
    assert (finding.level, finding.exit_code) == ("bad", code)
    assert words in f"{finding.what}. {finding.hint}"


def test_the_unit_has_to_let_the_service_write_there(folder: Path) -> None:
    found = needs(Settings(outputs=OutputSettings(page=folder, metrics=folder / "missing")))
    written = {need for need in found if need.write}
    assert {Need(folder.resolve(), write=True), Need(folder.resolve() / "missing", write=True)} <= written
