"""Parts of the package, compared with the project, without building it."""

import argparse
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from uecwatchd.cli.operators import GROUP, PROGRAM, VERBS
from uecwatchd.cli.verbs import build_parser

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "etc/packaging"
RULE = next(line for line in (PACKAGING / "uecadm.sudoers").read_text().splitlines() if line.startswith("%"))
# With these a member could choose what root reads.
CLOSED = {"--config", "--unit", "--help", "-h"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_library_of_a_service_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(one for name in extras if name not in ("bench", "test") for one in extras[name]),
    ]
    names = {canonical(match[0]) for one in wanted if (match := re.match(r"[\w.-]+", one))} - {"uecwatchd"}
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", (PACKAGING / "requirements.txt").read_text(), re.MULTILINE))
    assert names - pinned == set(), "run etc/packaging/lock"


@pytest.mark.parametrize("name", ["requirements.txt", "build-requirements.txt"])
def test_every_pin_has_hashes_and_nothing_else_is_fetched(name: str) -> None:
    text = (PACKAGING / name).read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert [
        one for one in entries if not re.match(r"\S+==\S+[^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", one)
    ] == []
    assert "://" not in text
    assert "--index" not in text


def allowed(arguments: str) -> bool:
    pattern = RULE.split(PROGRAM, 1)[1].strip()
    return re.match(pattern, arguments) is not None


def test_the_rule_for_operators_is_the_one_that_the_program_expects() -> None:
    assert RULE.startswith(f"%{GROUP} ALL=(root) NOPASSWD: {PROGRAM} ^")
    verbs = re.search(r"\^\(([a-z|]+)\)", RULE)
    assert verbs
    assert set(verbs[1].split("|")) == VERBS


def test_operators_may_give_every_option_of_their_verbs_that_chooses_no_file() -> None:
    refused = {
        f"{name} {option}"
        for name, verb in parsers().items()
        if name in VERBS
        for action in verb._actions
        for option in action.option_strings
        if not allowed(f"{name} {option}")
    }
    assert {one.split()[1] for one in refused} == CLOSED


@pytest.mark.parametrize("words", ["--watch", "--watch 5", "--watch=5", "--watch=0.5 karmic"])
def test_operators_may_watch_in_every_spelling(words: str) -> None:
    assert allowed(f"status {words}")


def parsers() -> dict[str, argparse.ArgumentParser]:
    (verbs,) = [one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction)]
    return dict(verbs.choices)


@pytest.mark.parametrize(
    "arguments",
    [
        "run",
        "inspect /etc/shadow",
        "status --config x",
        "status x --config=x",
        "--config x status",
        "setup",
        "status --conf=x",
        "status -",
        "bundle a b",
    ],
)
def test_operators_may_nothing_else(arguments: str) -> None:
    assert not allowed(arguments)


@pytest.mark.parametrize("script", sorted((PACKAGING / "debian").glob("p*[tm]")), ids=lambda path: path.name)
def test_maintainer_scripts_are_scripts(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/bin/sh\nset -e\n")
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0


def test_dpkg_asks_nothing_about_what_setup_writes() -> None:
    (listed,) = re.findall(r"(?m)^CONFFILES = (.+)", (PACKAGING / "build_deb.py").read_text())
    assert "uecwatchd.toml" not in listed
    postrm = (PACKAGING / "debian" / "postrm").read_text()
    assert "rm -f /etc/uecwatchd/uecwatchd.toml" in postrm


def test_a_purge_deletes_each_drop_in_that_the_program_writes_or_proposes() -> None:
    setup, check = (ROOT / "uecwatchd/cli" / name for name in ("setup/host_facts.py", "check/unit.py"))
    names = {re.findall(r"/((?:50|zz)-\w+\.conf)", file.read_text())[0] for file in (setup, check)}
    assert names == {"50-setup.conf", "zz-paths.conf"}
    postrm = (PACKAGING / "debian" / "postrm").read_text()
    assert {name for name in names if name not in postrm} == set()


@pytest.mark.parametrize(
    "name", ["systemd/uecwatchd.service", "etc/uecwatchd.toml", "etc/doc/administration.md", "README.md"]
)
def test_what_the_package_installs_does_not_only_name_places_in_the_sources(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.search(r"\betc/(examples|monitoring)\b", text)
    assert "/usr/share/doc/uecwatchd" in text


def test_the_package_suggests_what_its_advice_needs() -> None:
    control = (PACKAGING / "debian" / "control").read_text()
    suggested = re.split(r", ", control.partition("Suggests: ")[2].partition("\n")[0])
    packages = {"setfacl": "acl", "setquota": "quota", "memdisk": "syslinux-common", "mcopy": "mtools"}
    sources = "".join(path.read_text() for path in (ROOT / "uecwatchd").rglob("*.py"))
    assert {program for program in packages if program not in sources} == set()
    assert set(packages.values()) - set(suggested) == set()
