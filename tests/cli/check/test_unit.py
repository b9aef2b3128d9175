"""Files that `check` looks for as root, before it goes on as the service's user."""

from collections.abc import Callable
from pathlib import Path

import pytest

from uecwatchd.cli.check.host import examine_sharing
from uecwatchd.cli.check.unit import examine_unit, needs
from uecwatchd.cli.unit.systemd import Unit
from uecwatchd.config.records import Settings

Configured = Callable[..., Settings]


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that the service's user may write, with the files of the AWS tools."""
    folder = tmp_path / "home" / ".aws"
    folder.mkdir(parents=True)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder.parent))
    return folder


@pytest.mark.parametrize(
    ("file", "section", "profile"),
    [
        ("config", "profile lab", "lab"),
        ("credentials", "lab", "lab"),
        ("config", "default", "environment"),
    ],
)
def test_no_program_of_a_profile_runs_before_the_user_is_changed(
    configured: Configured, aws: Path, tmp_path: Path, file: str, section: str, profile: str
) -> None:
    (aws / file).write_text(f"[{section}]\ncredential_process = /bin/touch {tmp_path / 'was-run'}\n")
    needs(configured(f'profile = "{profile}"'))
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("profile", ["lab", "nonesuch", "environment"])
def test_the_file_with_a_profiles_keys_is_needed(configured: Configured, aws: Path, profile: str) -> None:
    (aws / "credentials").write_text("[lab]\naws_access_key_id = a\naws_secret_access_key = s\n")
    found = needs(configured(f'profile = "{profile}"'))
    assert aws.resolve() / "credentials" in {need.path for need in found}


def test_keys_of_the_environment_need_no_file(
    configured: Configured, aws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (aws / "credentials").write_text("[default]\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    found = needs(configured('profile = "environment"'))
    assert aws.resolve() / "credentials" not in {need.path for need in found}


@pytest.mark.parametrize(
    ("credential", "mode", "found"),
    [("secret_key", 0o644, 1), ("secret_key", 0o600, 0), ("user_cert", 0o644, 0)],
)
def test_a_secret_that_every_user_can_read_is_reported(
    tmp_path: Path, credential: str, mode: int, found: int
) -> None:
    place = tmp_path / "it"
    place.touch()
    place.chmod(mode)
    name = f"uecwatchd_cloud__default__{credential}"
    unit = Unit("uecwatchd.service", {"LoadCredential": [[name, str(place)], [name, "relative"]]})
    warnings = [one for one in examine_unit(unit, ()) if one.level == "warning"]
    assert [one.hint for one in warnings] == [f"Try: chmod o-rwx {place}"] * found


@pytest.mark.parametrize(("kind", "found"), [("nfs4", 1), ("cifs", 1), ("ext4", 0), ("", 0)])
def test_a_folder_that_other_hosts_can_reach_is_reported(kind: str, found: int) -> None:
    warnings = list(examine_sharing(Path("/srv/drop"), kind))
    assert [one.level for one in warnings] == ["warning"] * found
    assert all("another host" in one.what for one in warnings)
