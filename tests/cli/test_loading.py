"""A verb loads what it needs: none waits for a cloud's client that asks no cloud."""

import json
import subprocess
import sys

import pytest

from tests.support.host import Host

CLIENTS = ["boto3", "botocore", "cryptography"]
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
    assert loaded_by(host, verb, *names, "--config", str(host.config), of=[*CLIENTS, "isal"]) == []


@pytest.mark.parametrize("question", ["--help", "--version"])
def test_version_and_help_load_no_verb(question: str, host: Host) -> None:
    of = [*CLIENTS, "pydantic", "structlog", "sqlite3", "uecwatchd.config.load", "uecwatchd.service.daemon"]
    assert loaded_by(host, question, of=of) == []


def test_a_verb_that_asks_a_cloud_loads_a_client(host: Host) -> None:
    assert loaded_by(host, "images", "--config", str(host.config), of=["boto3"]) == ["boto3"]
