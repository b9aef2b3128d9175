import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.clouds.dialects import AWS, DIALECTS, EUCA3, EUCA4, UEC, fitting_name


def test_a_dialect_is_known_by_its_own_name() -> None:
    assert set(DIALECTS) == {"uec", "euca3", "euca4", "euca5", "openstack", "aws", "sandbox"}
    assert all(dialect.name == name for name, dialect in DIALECTS.items())


def test_a_name_is_sent_exactly_where_images_have_names() -> None:
    for dialect in DIALECTS.values():
        assert ("Name" in dialect.register_parameters) == (dialect.name_pattern is not None), dialect.name


@pytest.mark.parametrize(
    ("dialect", "name", "fitting"),
    [
        pytest.param(EUCA4, "karmic-9.10", "karmic-9.10", id="a good name stays"),
        pytest.param(EUCA3, "vmlinuz-2.6.31-14", "vmlinuz-2-6-31-14", id="dots came with 4.0"),
        pytest.param(EUCA4, "Karmic Server ü", "Karmic-Server--", id="spaces and other letters"),
        pytest.param(AWS, "Karmic Server", "Karmic Server", id="aws takes spaces"),
        pytest.param(EUCA3, "k", "k--", id="too short"),
        pytest.param(UEC, "karmic", "", id="the first generation has no names"),
    ],
)
def test_a_name_is_spelled_as_the_cloud_takes_it(dialect: object, name: str, fitting: str) -> None:
    assert fitting_name(dialect, name) == fitting


def test_a_name_that_is_too_long_keeps_its_start_and_end() -> None:
    name = fitting_name(EUCA4, "a" * 200 + "-0f3c9e12")
    assert len(name) == 128
    assert name.startswith("aaa")
    assert name.endswith("-0f3c9e12")


@given(st.text(min_size=1))
def test_any_name_is_changed_into_a_valid_one(name: str) -> None:
    for dialect in DIALECTS.values():
        if dialect.name_pattern:
            assert dialect.name_pattern.fullmatch(fitting_name(dialect, name))
