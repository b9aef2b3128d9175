"""The files under systemd/, judged by systemd's own programs; none of them needs systemd to be running."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from uecwatchd.events import Kind
from uecwatchd.outputs.journal import MESSAGE_IDS

FILES = Path(__file__).parents[2] / "systemd"
UNIT = FILES / "uecwatchd.service"
# Ten times the score. 1.4 is as far as a service goes that needs a network and other users' files.
EXPOSURE_PERCENT = 20
NEEDS_SYSTEMD = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd's programs here"
)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)


def settings_of_the_unit(section: str) -> dict[str, str]:
    """Single settings; of one that is given twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd tells capitals apart
    parser.read(UNIT, encoding="utf-8")
    return dict(parser[section])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with nothing but our files in it."""
    for folder, source, name in (
        ("usr/lib/sysusers.d", "uecwatchd.sysusers", "uecwatchd.conf"),
        ("usr/lib/tmpfiles.d", "uecwatchd.tmpfiles", "uecwatchd.conf"),
        ("usr/lib/systemd/catalog", "uecwatchd.catalog", "uecwatchd.catalog"),
        ("etc", "uecwatchd.sysusers", "unused"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(FILES / source, tmp_path / folder / name)
    return tmp_path


@NEEDS_SYSTEMD
def test_the_unit_says_nothing_systemd_does_not_understand(tmp_path: Path) -> None:
    unit = tmp_path / "uecwatchd.service"
    # The program need not be installed for the test: one that is stands in for it.
    text = UNIT.read_text(encoding="utf-8").replace("ExecStart=uecwatchd ", "ExecStart=/bin/true ")
    unit.write_text(text, encoding="utf-8")
    verdict = run("systemd-analyze", "verify", "--man=no", unit)
    # It exits with 0 for an unknown setting, and only prints a warning.
    assert (verdict.returncode, verdict.stderr) == (0, "")


@NEEDS_SYSTEMD
def test_the_unit_exposes_little(tmp_path: Path) -> None:
    verdict = run(
        "systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_PERCENT}", "--no-pager", UNIT
    )
    assert verdict.returncode == 0, verdict.stdout


def test_exit_codes_that_people_must_correct_cause_no_restart() -> None:
    service = settings_of_the_unit("Service")
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"].split() == ["USAGE", "CONFIG", "NOPERM"]


def test_every_group_of_settings_in_the_unit_has_its_reason() -> None:
    blocks = re.split(
        r"\n(?=\n|\[)", UNIT.read_text(encoding="utf-8").split("[Service]\n")[1].split("[Install]")[0]
    )
    assert all(block.strip().startswith("#") for block in blocks if block.strip())


@NEEDS_SYSTEMD
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_users_and_folders_are_made(root: Path) -> None:
    users = run("systemd-sysusers", f"--root={root}")
    assert users.returncode == 0, users.stderr
    folders = run("systemd-tmpfiles", f"--root={root}", "--create")
    assert (folders.returncode, folders.stderr) == (0, "")
    passwd = dict(line.split(":", 1) for line in (root / "etc/passwd").read_text().splitlines())
    groups = {line.split(":")[0]: line.split(":") for line in (root / "etc/group").read_text().splitlines()}
    assert passwd["uecwatchd"].endswith(":/var/lib/uecwatchd:/usr/sbin/nologin")
    assert set(groups["uecdrop"][3].split(",")) == {"uecbuild", "uecwatchd"}, "both read what is dropped"
    assert groups["uecbuild"][3] == "uecwatchd", "and the service what is built"
    spool = (root / "var/spool/uecwatchd").stat()
    assert oct(spool.st_mode & 0o7777) == "0o3770"
    assert (str(spool.st_uid), str(spool.st_gid)) == (passwd["uecwatchd"].split(":")[1], groups["uecdrop"][2])
    assert oct((root / "etc/uecwatchd").stat().st_mode & 0o7777) == "0o750"
    assert oct((root / "var/lib/uecwatchd").stat().st_mode & 0o7777) == "0o700"
    assert oct((root / "var/lib/uecwatchd-build").stat().st_mode & 0o7777) == "0o2770"


# --- the catalog ------------------------------------------------------------------------------------------


def catalog() -> dict[str, str]:
    """The entries, by message id."""
    text = (FILES / "uecwatchd.catalog").read_text(encoding="utf-8")
    pieces = re.split(r"^-- ([0-9a-f]{32})\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def test_the_catalog_explains_exactly_the_messages_there_are() -> None:
    assert set(catalog()) == set(MESSAGE_IDS.values())


@pytest.mark.parametrize("kind", Kind)
def test_a_catalog_entry_says_what_happened_and_what_to_do(kind: Kind) -> None:
    entry = catalog()[MESSAGE_IDS[kind]]
    header, meaning, advice = entry.strip().split("\n\n")
    assert re.fullmatch(r"Subject: .+\nDefined-By: uecwatchd", header)
    assert meaning
    assert advice


def test_a_disk_that_is_full_is_not_called_an_error_of_the_program() -> None:
    subject, meaning, advice = catalog()[MESSAGE_IDS[Kind.FAULT]].strip().split("\n\n")
    assert "internal error" not in subject
    assert "disk" in meaning
    assert "uecwatchd check" in advice


def test_the_catalog_names_only_fields_that_events_have() -> None:
    text = (FILES / "uecwatchd.catalog").read_text(encoding="utf-8")
    known = {
        "SET",
        "ARGUMENT",
        "FILE",
        "STAGE",
        "EMI",
        "EKI",
        "ERI",
        "CLOUD",
        "BUCKET",
        "ATTEMPT",
        "ERROR",
        "HINT",
    }
    assert set(re.findall(r"@UEC_([A-Z_]+)@", text)) <= known


def test_a_command_of_the_catalog_has_the_set_as_one_quoted_word() -> None:
    text = (FILES / "uecwatchd.catalog").read_text(encoding="utf-8")
    assert set(re.findall(r"uecwatchd [a-z]+ (@\w+@)", text)) == {"@UEC_ARGUMENT@"}


@NEEDS_SYSTEMD
def test_journalctl_takes_the_catalog(root: Path) -> None:
    built = run("journalctl", f"--root={root}", "--update-catalog")
    assert (built.returncode, built.stderr) == (0, "")
    listed = run("journalctl", f"--root={root}", "--list-catalog")
    assert len(listed.stdout.splitlines()) == len(Kind)
    dumped = run("journalctl", f"--root={root}", "--dump-catalog", MESSAGE_IDS[Kind.DONE])
    assert "Subject: @UEC_SET@ is registered as @UEC_EMI@" in dumped.stdout
