"""The verb that runs the cloud: what it offers, and what it hands on."""

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from uecwatchd.cli.main import main
from uecwatchd.sandbox.faults import FAULTS
from uecwatchd.sandbox.rules.generations import RULES
from uecwatchd.sandbox.server import Sandbox


def test_the_command_offers_every_generation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "--dialect", "auto", "--dir", str(tmp_path / "cloud")]) == 64
    output = capsys.readouterr().err
    assert "--dialect auto: the embedded cloud knows no such generation" in output
    assert f"Use one of: {', '.join(RULES)}." in output
    assert not (tmp_path / "cloud").exists()


def test_the_commands_help_lists_generations_and_faults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sandbox", "--help"])
    output = capsys.readouterr().out
    assert (ended.value.code, f"dialects: {', '.join(RULES)}\n" in output) == (0, True)
    lines = [f"  {name}[={fault.unit.name}]: {fault.text}\n" for name, fault in FAULTS.items()]
    assert [line for line in lines if line not in output] == []


# The extra is missing where this module cannot be imported.
WITHOUT_EXTRA = (
    "import sys; sys.modules['werkzeug'] = None; from uecwatchd.cli.main import main; sys.exit(main())"
)


@pytest.mark.parametrize(
    ("words", "code", "output"),
    [
        (["--help"], 0, "sandbox "),
        (["sandbox", "--help"], 0, "dialects: sandbox, "),
        (["sandbox"], 78, " -m pip install 'werkzeug>="),
    ],
    ids=["the verbs", "one verb's help", "that verb"],
)
def test_the_command_can_be_asked_without_the_extra(words: list[str], code: int, output: str) -> None:
    command = [sys.executable, "-c", WITHOUT_EXTRA, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, output in done.stdout + done.stderr) == (code, True), done


@pytest.mark.parametrize(("words", "allowed"), [([], True), (["--no-administrator"], False)])
def test_the_command_makes_its_user_an_administrator_or_not(
    words: list[str],
    allowed: bool,  # noqa: FBT001  # a parameter of the table
    tmp_path: Path,
    make_forge: Any,
    make_clients: Any,
    refusal: Any,
    contents: Any,
) -> None:
    """As the registration of a kernel shows, which is in the folder from before."""
    with Sandbox(tmp_path, dialect="euca5") as before:
        location, identity = make_forge(before).bundle(contents["kernel"], type="kernel"), before.identity
    command = [sys.executable, "-m", "uecwatchd", "sandbox", "--port", "0", "--dir", str(tmp_path)]
    command += ["--dialect", "euca5", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            output = dict(process.stdout.readline().strip().split("=", 1) for _ in range(3))
            running = SimpleNamespace(ec2_url=output["EC2_URL"], identity=identity)
            register = make_clients(running).ec2().register_image
            kernel = {"ImageLocation": location, "Name": "kernel"}
            if allowed:
                assert register(**kernel)["ImageId"].startswith("aki-")
            else:
                refused = refusal(register, **kernel)
                assert refused.message == "Only administrators can register kernel images."
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
