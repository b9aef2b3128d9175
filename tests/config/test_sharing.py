"""Settings of folders that several hosts share."""

from pathlib import Path

import pytest

from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.config.sharing import check_shares_stay, share_in, shared_folders
from uecwatchd.errors import Halted

FLEET = '[fleet]\ndsn = "dbname=uecwatchd"\n'


def read(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "uecwatchd.toml"
    file.write_text(f'[spool]\nfolders = ["/srv/a", "/srv/b"]\n{text}')
    return load(file, environ={})


def test_the_shared_folders_are_those_with_a_policy_that_says_so(tmp_path: Path) -> None:
    spool = read(tmp_path, f'[spool.policy."/srv/b"]\nshared = true\n{FLEET}').spool
    assert shared_folders(spool) == (Path("/srv/b"),)
    assert share_in(spool, Path("/srv/a")) == 0
    assert share_in(spool, Path("/srv/b")) < 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("shared = true", "/srv/b is shared, which needs dsn under \\[fleet\\]"),
        (f'shared = true\nsource = "s3://drop"\n{FLEET}', "a bucket fills the folder of one host"),
    ],
)
def test_a_mistake_is_reported(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(Halted, match=why):
        read(tmp_path, f'[spool.policy."/srv/b"]\n{text}\n')


def test_other_shared_folders_need_a_restart(tmp_path: Path) -> None:
    before = read(tmp_path, "").spool
    after = read(tmp_path, f'[spool.policy."/srv/b"]\nshared = true\n{FLEET}').spool
    check_shares_stay(after, after)
    with pytest.raises(Halted, match="/srv/b: it was shared and is not"):
        check_shares_stay(before, after)
