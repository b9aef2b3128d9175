"""A verb loads what it needs: a client only if it asks a cloud, and nothing for its help."""

import json
import subprocess
import sys

import pytest

from tests.support.host import Host
from uecwatchd.cli.verbs import VERBS

CLIENTS = ["boto3", "botocore", "cryptography", "psycopg"]
# Runs a verb as the program does, and tells on the last line which of the named modules it has loaded.
LOADED = """
import json, sys
from uecwatchd.cli.main import main
try:
    ended = main(sys.argv[2:])
except SystemExit as end:
    ended = end.code
loaded = [name for name in json.loads(sys.argv[1]) if name in sys.modules]
print()
print(json.dumps([ended, loaded]))
"""
# Prints the options of each verb in the whole parser, and which of the named modules were loaded for it.
OPTIONS = """
import argparse, json, sys
from uecwatchd.cli.verbs import build_parser
(verbs,) = [each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction)]
options = {name: list(parser._option_string_actions) for name, parser in verbs.choices.items()}
print(json.dumps([options, [name for name in json.loads(sys.argv[1]) if name in sys.modules]]))
"""


def loaded_by(host: Host, *arguments: str, of: list[str]) -> list[str]:
    command = [sys.executable, "-c", LOADED, json.dumps(of), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    code, loaded = json.loads(ended.stdout.splitlines()[-1])
    assert code == 0, ended.stderr
    return list(loaded)


@pytest.mark.parametrize("verb", ["status", "retry", "hold", "release", "forget"])
def test_a_verb_that_asks_no_cloud_loads_no_client(verb: str, host: Host) -> None:
    (host.spool / "karmic.img").write_bytes(b"x" * 512)
    assert host.run("once").returncode == 65, "it is no disk, and is refused"
    names = ["karmic"] if verb != "status" else []
    assert loaded_by(host, verb, *names, "--config", str(host.config), of=[*CLIENTS, "isal", "rich"]) == []


QUESTIONS = [["--help"], ["--version"], *([verb.name, "--help"] for verb in VERBS)]


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_version_and_help_load_no_verb(question: list[str], host: Host) -> None:
    of = [*CLIENTS, "pydantic", "structlog", "sqlite3", "uecwatchd.config.load", "uecwatchd.service.daemon"]
    of += [f"uecwatchd.{verb.module}" for verb in VERBS]
    assert loaded_by(host, *question, of=of) == []


def test_the_whole_parser_is_built_without_a_verb() -> None:
    """Completions and manual pages can be made from it: it has every option of every verb."""
    command = [sys.executable, "-c", OPTIONS, json.dumps([f"uecwatchd.{verb.module}" for verb in VERBS])]
    options, loaded = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert loaded == []
    assert options.keys() == {verb.name for verb in VERBS}
    assert "--dry-run" in options["once"]
    assert "--fault" in options["sandbox"]
    assert all("--config" in of_one for of_one in options.values())


def test_a_verb_that_asks_a_cloud_loads_a_client(host: Host) -> None:
    assert loaded_by(host, "images", "--config", str(host.config), of=["boto3"]) == ["boto3"]
