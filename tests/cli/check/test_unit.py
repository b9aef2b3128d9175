"""Files that `check` looks for as root, before it goes on as the service's user."""

from collections.abc import Callable
from pathlib import Path

import pytest

from uecwatchd.cli.check.unit import needs
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
