"""The plan of the house, held against the code: the README's table of wings, and what can be taken in."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "uecwatchd"
README = (ROOT / "README.md").read_text()

# A list of verbs is long by nature, but more than this is two lists.
LONGEST_MODULE_LINES = 400
LONGEST_FUNCTION_LINES = 50


MODULES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in MODULES]


def contracts() -> list[dict[str, Any]]:
    """Return the import contracts, which are part of the test command themselves."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[dict[str, Any]] = project["tool"]["importlinter"]["contracts"]
    return found


def test_the_table_names_each_wing_from_the_ground_up() -> None:
    table = README.split("| wing | what it is |", 1)[1].split("\n\n", 1)[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    layers = [re.split(r" [|:] ", layer) for layer in contracts()[0]["layers"]]
    assert named == [wing for layer in reversed(layers) for wing in layer]


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_modules_and_functions_have_a_maximum_length(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= LONGEST_MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=str)
def test_a_package_says_what_it_is_and_exports_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_no_module_exports_names_of_others(path: Path) -> None:
    assert "__all__" not in path.read_text()


def test_no_class_name_stands_twice_in_the_package() -> None:
    """One word, one idea: a reader who meets a name knows what it is, in whatever module."""
    places: dict[str, list[str]] = {}
    for path, module in zip(MODULES, IDS, strict=True):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_ci_runs_the_readmes_test_command_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "<!-- test it -->" in script
    assert "pytest" not in script


@pytest.mark.parametrize("marker", ["<!-- try it -->", "<!-- test it -->"])
def test_the_readme_has_its_two_commands(marker: str) -> None:
    command = README.split(marker, 1)[1].split("```", 2)[1]
    assert command.startswith("sh\napt-get update")


def test_the_readme_names_every_output() -> None:
    from uecwatchd.intake.spool.output_files import OUTPUT_SUFFIXES

    assert all(f"karmic{suffix}`" in README for suffix in OUTPUT_SUFFIXES)


def test_every_verb_of_the_readme_exists() -> None:
    from uecwatchd.cli.main import main

    for verb in (
        "run",
        "once",
        "check",
        "status",
        "log",
        "history",
        "retry",
        "forget",
        "hold",
        "release",
        "withdraw",
        "rollback",
        "prune",
        "orphans",
        "fleet",
        "drain",
        "verify",
        "images",
        "bundle",
        "unbundle",
        "inspect",
        "sandbox",
        "demo",
        "setup",
    ):
        assert f"`{verb}" in README or f"uecwatchd {verb}" in README
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
