"""The rule for older images: its values, their mistakes, and which of two rules has priority."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.config.retention import AGE, AGE_UNITS, RetentionRule, write_age
from uecwatchd.errors import Halted

DAY = 86400.0
FOLDER = Path("/srv/team")


def loaded(tmp_path: Path, text: str, **environ: str) -> Settings:
    config = tmp_path / "uecwatchd.toml"
    config.write_text(text)
    return load(config, environ=environ)


def test_without_a_rule_nothing_is_done(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").retention == RetentionRule()
    assert not RetentionRule().is_on
    assert not RetentionRule(min_age=DAY, delete_after=DAY).is_on, "there is no number to keep"


def test_all_values_are_read(tmp_path: Path) -> None:
    text = '[retention]\nkeep = 3\nmin_age = "30d"\ndeprecate_after = "36h"\ndelete_after = "8w"\n'
    rule = RetentionRule(keep=3, min_age=30 * DAY, deprecate_after=1.5 * DAY, delete_after=56 * DAY)
    assert loaded(tmp_path, text).retention == rule


def test_the_environment_has_priority(tmp_path: Path) -> None:
    found = loaded(tmp_path, "[retention]\nkeep = 3\n", UECWATCHD_RETENTION__KEEP="5")
    assert found.retention == RetentionRule(keep=5)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("keep = 0", "must be 1 or more: the image in use, and the one before it, always stay"),
        ("keep = -1", "must be 1 or more"),
        ("keep = true", "must be a number"),
        ("keep = 2.5", "must be a number"),
        ('keep = "many"', "must be a number"),
        ("keep = 1000000", "must be at most"),
        ("min_age = 30", 'must be a number with a unit, such as "36h", "30d" or "8w"'),
        ('min_age = "30"', "must be a number with a unit"),
        ('min_age = "1 year"', "must be a number with a unit"),
        ('delete_after = "-3d"', "must be a number with a unit"),
        ("kep = 3", "did you mean keep?"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, value: str, words: str) -> None:
    with pytest.raises(Halted) as caught:
        loaded(tmp_path, f"[retention]\n{value}\n")
    assert words in caught.value.why


def test_a_folder_has_priority_and_leaves_open_what_it_does_not_say(tmp_path: Path) -> None:
    text = f'[retention]\nkeep = 3\nmin_age = "30d"\n[spool.policy."{FOLDER}"]\nretention = {{ keep = 9 }}\n'
    settings = loaded(tmp_path, f'[spool]\nfolders = ["{FOLDER}", "/srv/other"]\n{text}')
    assert settings.retention_of(FOLDER) == RetentionRule(keep=9, min_age=30 * DAY)
    assert settings.retention_of(Path("/srv/other")) == RetentionRule(keep=3, min_age=30 * DAY)


@given(number=st.integers(0, 10**6 - 1), unit=st.sampled_from(sorted(AGE_UNITS)))
def test_an_age_is_written_so_that_it_can_be_read(number: int, unit: str) -> None:
    seconds = float(number * AGE_UNITS[unit])
    found = AGE.fullmatch(write_age(seconds))
    assert found
    assert int(found[1]) * AGE_UNITS[found[2]] == seconds
