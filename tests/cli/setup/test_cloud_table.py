"""Changes of a cloud's table in the configuration: as text, with all comments kept."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.cli.setup.cloud_table import with_settings
from uecwatchd.config.documents import parse_toml
from uecwatchd.errors import Halted

EXAMPLE = (Path(__file__).parents[3] / "etc/uecwatchd.toml").read_text(encoding="utf-8")


def changed(text: str, *, cloud: str = "default", elsewhere: tuple[str, ...] = (), **settings: str) -> str:
    return with_settings(text, cloud, given=settings, elsewhere=elsewhere)


def test_a_setting_replaces_its_example_and_every_other_line_stays() -> None:
    text = changed(EXAMPLE, ec2_url="http://192.0.2.9/e", elsewhere=("eucarc",))
    before, after = EXAMPLE.splitlines(), text.splitlines()
    differing = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert differing == [
        ('eucarc = "/etc/uecwatchd/eucarc"', '#eucarc = "/etc/uecwatchd/eucarc"'),
        (
            '#ec2_url = "http://192.0.2.1:8773/services/Eucalyptus"',
            'ec2_url = "http://192.0.2.9/e"',
        ),
    ]


def test_the_same_settings_again_change_nothing() -> None:
    once = changed(EXAMPLE, ec2_url="http://192.0.2.9/e", elsewhere=("eucarc",))
    assert changed(once, ec2_url="http://192.0.2.9/e", elsewhere=("eucarc",)) == once


def test_a_cloud_without_a_table_gets_one_at_the_end() -> None:
    text = changed("[spool]\nsettle = 1\n", cloud="lab", region="here")
    assert parse_toml(text.encode()) == {"spool": {"settle": 1}, "cloud": {"lab": {"region": "here"}}}


@pytest.mark.parametrize(
    "header", ["[ cloud.default ]", "[cloud . default]", "['cloud'.\"default\"]  # [cloud.other]"]
)
def test_a_table_is_found_however_its_header_is_written(header: str) -> None:
    text = changed(f'[spool]\n{header}\n"region" = "there"\n', region="here")
    assert text == f'[spool]\n{header}\nregion = "here"\n'


def test_a_secret_that_is_a_credential_now_leaves_the_file() -> None:
    text = changed('[cloud.default]\nsecret_key = "hush"\n', elsewhere=("secret_key",))
    assert "hush" not in text


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_value_is_quoted(value: str) -> None:
    text = changed("[cloud.default]\n", region=value)
    assert parse_toml(text.encode())["cloud"]["default"]["region"] == value


@pytest.mark.parametrize(
    "text",
    [
        'cloud = { default = { region = "here" } }\n',
        '[cloud.default]\nregion = """\nhere"""\n',
        '[cloud]\ndefault.region = "here"\n',
    ],
)
def test_a_table_that_cannot_be_changed_by_lines_is_left_alone_with_the_lines_to_write(text: str) -> None:
    with pytest.raises(Halted, match="cannot be changed line by line") as refused:
        changed(text, region="there")
    assert 'region = "there"' in refused.value.hint


def test_a_mistake_in_the_file_is_named_with_its_place() -> None:
    with pytest.raises(Halted, match="line 2"):
        changed("[spool]\n[cloud.default\n", region="there")
