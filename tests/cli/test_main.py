"""The verbs as a person meets them."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.waiting import PATIENCE_SECONDS
from uecwatchd.demo.material import RealSet


def test_an_image_bundled_by_hand_is_unbundled_with_either_key(
    host: Host, real_set: RealSet, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    bundled = host.run("bundle", str(real_set.machine), str(folder), "--kernel", "eki-12345678")
    assert bundled.returncode == 0, bundled.stderr
    manifest = Path(bundled.stdout.strip())
    assert manifest.parent == folder
    text = manifest.read_text()
    assert "<type>machine</type>" in text
    assert "<kernel_id>eki-12345678</kernel_id>" in text
    cloud_key = next(path for path in host.cloud.folder.glob("*.pem") if path.name.startswith("cloud-pk"))
    for number, more in enumerate(([], ["--cloud-key", str(cloud_key)])):
        target = tmp_path / str(number)
        target.mkdir()
        back = host.run("unbundle", str(manifest), str(target), *more)
        assert back.returncode == 0, back.stderr
        assert Path(back.stdout.strip()).read_bytes() == real_set.machine.read_bytes()


@pytest.mark.parametrize(("role", "word"), [("kernel", "kernel_id"), ("ramdisk", "ramdisk_id")])
def test_bundle_detects_the_role_of_a_file(
    host: Host, real_set: RealSet, tmp_path: Path, role: str, word: str
) -> None:
    ended = host.run("bundle", str(getattr(real_set, role)), str(tmp_path / "b"))
    text = Path(ended.stdout.strip()).read_text()
    assert f"<{word}>true</{word}>" in text
    assert f"<type>{role}</type>" in text


def test_a_damaged_bundle_gives_no_image(host: Host, real_set: RealSet, tmp_path: Path) -> None:
    ended = host.run("bundle", str(real_set.ramdisk), str(tmp_path / "b"))
    part = Path(ended.stdout.strip().replace(".manifest.xml", ".part.0"))
    part.chmod(0o600)
    part.write_bytes(part.read_bytes()[:-16])
    target = tmp_path / "t"
    target.mkdir()
    back = host.run("unbundle", ended.stdout.strip(), str(target))
    assert back.returncode == 65
    assert part.name in back.stderr
    assert list(target.iterdir()) == []


def test_bundling_a_missing_file_is_reported(host: Host, tmp_path: Path) -> None:
    ended = host.run("bundle", str(tmp_path / "nonesuch"), str(tmp_path / "b"))
    assert ended.returncode != 0
    assert "nonesuch" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_data_goes_to_standard_output_and_messages_to_standard_error(host: Host) -> None:
    for arguments in (["status", "--json"], ["check", "--json"], ["once", "--json"]):
        ended = host.run(*arguments)
        json.loads(ended.stdout)
    assert host.run("status").stdout == ""


def test_the_embedded_cloud_runs_until_interrupted_and_keeps_what_it_has(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "uecwatchd", "sandbox", "--port", "0", "--dir", str(tmp_path / "c")]
    keys = []
    for _ in range(2):
        cloud = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert cloud.stdout
        lines = [cloud.stdout.readline() for _ in range(3)]
        assert lines[0].startswith("EC2_URL=http://127.0.0.1:")
        keys.append(re.findall("EC2_ACCESS_KEY=(.*)", Path(lines[2].strip().split("=")[1]).read_text()))
        cloud.send_signal(signal.SIGINT)
        cloud.communicate(timeout=PATIENCE_SECONDS)
        assert cloud.returncode == 0
    assert keys[0] == keys[1]


def test_the_demo_ends_with_an_emi_that_was_verified(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "uecwatchd", "demo", "--dir", str(tmp_path / "demo")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=4 * PATIENCE_SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    emi = (tmp_path / "demo" / "spool" / "tiny.emi").read_text().strip()
    assert f"tiny is {emi}." in ended.stdout
    assert f"{emi} equals tiny.img" in ended.stdout
    assert "Where to look next" in ended.stdout


def test_the_demo_accepts_files_of_the_user(real_set: RealSet, tmp_path: Path) -> None:
    files = []
    for made, ending in (
        (real_set.machine, "img"),
        (real_set.kernel, "vmlinuz"),
        (real_set.ramdisk, "initrd"),
    ):
        files.append(tmp_path / f"mine.{ending}")
        files[-1].hardlink_to(made)
    command = [sys.executable, "-m", "uecwatchd", "demo", "--dir", str(tmp_path / "demo"), *map(str, files)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=4 * PATIENCE_SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "demo" / "spool" / "mine.emi").exists()


def test_the_demo_of_a_file_that_is_no_image_says_why(tmp_path: Path) -> None:
    (tmp_path / "mine.img").write_text("no image at all\n")
    command = [
        sys.executable,
        "-m",
        "uecwatchd",
        "demo",
        "--dir",
        str(tmp_path / "demo"),
        str(tmp_path / "mine.img"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=4 * PATIENCE_SECONDS)
    assert ended.returncode == 65
    assert "a text file" in ended.stderr


def test_file_names_cannot_control_the_terminal(host: Host) -> None:
    (host.spool / "a\x1b[31m\nb.img").write_bytes(b"x" * 512)
    ended = host.run("status")
    assert "\x1b" not in ended.stdout
    assert len(ended.stdout.splitlines()) == 2
    ended = host.run("once")
    assert "\x1b" not in ended.stderr


def test_a_closed_pipe_is_no_error(host: Host) -> None:
    for number in range(200):
        (host.spool / f"file-{number}").write_text("x")
    reader = f"{sys.executable} -m uecwatchd status | head -n 1"
    environ = {**os.environ, "UECWATCHD_CONFIG": str(host.config)}
    ended = subprocess.run(["sh", "-c", reader], env=environ, capture_output=True, text=True, check=True)
    assert "Traceback" not in ended.stderr
    assert "Broken" not in ended.stderr


BEFORE = [["--config", "{}"], ["--config={}"], ["--unit", "none.service", "--config", "{}"], ["--conf", "{}"]]


@pytest.mark.parametrize("verb", [["status", "--json"], ["once", "--dry-run", "--json"], ["check", "--json"]])
@pytest.mark.parametrize("words", BEFORE, ids=map(" ".join, BEFORE))
def test_common_options_may_precede_the_verb(host: Host, words: list[str], verb: list[str]) -> None:
    words = [word.format(host.config) for word in words]
    nowhere = {"UECWATCHD_CONFIG": "/nonexistent"}
    before = host.run(*words, *verb, environ=nowhere)
    behind = host.run(*verb, *words, environ=nowhere)
    assert (before.returncode, json.loads(before.stdout)) == (behind.returncode, json.loads(behind.stdout))
    assert "nonexistent" not in before.stderr


def test_the_last_of_repeated_common_options_counts(host: Host) -> None:
    ended = host.run("--config", "/nonexistent", "status", "--config", str(host.config))
    assert (ended.returncode, ended.stdout) == (0, "")


def test_the_name_of_a_verb_may_be_the_value_of_an_option(host: Host) -> None:
    ended = host.run("--unit", "images", "status", "--config", str(host.config))
    assert (ended.returncode, ended.stdout) == (0, "")
