"""The plan of the house, held against the code: the README's table of rooms, and what may import what."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "uecwatchd"
README = (ROOT / "README.md").read_text()

# Modules of the package itself that are no rooms.
THRESHOLD = {"__init__", "__main__"}
# A list of verbs is long by nature, but more than this is two lists.
LONGEST_MODULE_LINES = 400
LONGEST_FUNCTION_LINES = 50


def rooms() -> list[str]:
    table = README.split("| room | what it is |", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) not in THRESHOLD)
IDS = [str(path.relative_to(PACKAGE)) for path in MODULES]


def imported_rooms(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "uecwatchd":
            names = [f"uecwatchd.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found.update(name.split(".")[1] for name in names if name.startswith("uecwatchd."))
    return found - {"version"}


def test_the_table_names_every_room_and_no_other() -> None:
    assert sorted(rooms()) == sorted({room_of(path) for path in MODULES})


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_imports_point_only_upwards_in_the_table(path: Path) -> None:
    order = rooms()
    mine = order.index(room_of(path))
    assert {room for room in imported_rooms(path) if order.index(room) > mine} == set()


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) == "sandbox"], ids=lambda path: path.name)
def test_the_embedded_cloud_shares_no_rule_with_what_it_checks(path: Path) -> None:
    assert imported_rooms(path) <= {"sandbox", "errors", "events"}


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) not in ("sandbox", "demo", "cli")])
def test_nothing_but_the_demo_and_the_verbs_knows_the_embedded_cloud(path: Path) -> None:
    assert "sandbox" not in imported_rooms(path)


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_modules_and_functions_can_be_taken_in(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= LONGEST_MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_ci_runs_the_readmes_test_command_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "<!-- test it -->" in script
    assert "pytest" not in script


@pytest.mark.parametrize("marker", ["<!-- try it -->", "<!-- test it -->"])
def test_the_readme_has_its_two_commands(marker: str) -> None:
    command = README.split(marker, 1)[1].split("```", 2)[1]
    assert command.startswith("sh\napt-get update")


def test_the_readme_names_every_output() -> None:
    from uecwatchd.spool import OUTPUT_SUFFIXES

    assert all(f"karmic{suffix}`" in README for suffix in OUTPUT_SUFFIXES)


def test_every_verb_of_the_readme_exists() -> None:
    from uecwatchd.cli.main import main

    for verb in (
        "run",
        "once",
        "check",
        "status",
        "retry",
        "forget",
        "hold",
        "release",
        "verify",
        "images",
        "bundle",
        "unbundle",
        "sandbox",
        "demo",
    ):
        assert f"`{verb}" in README or f"uecwatchd {verb}" in README
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
