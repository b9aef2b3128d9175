import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import uecwatchd
from uecwatchd.cloud.dialect import AWS, DIALECTS, EUCA3, EUCA4, UEC, fitting_name

PACKAGE = Path(uecwatchd.__file__).parent

# The configuration names its dialect, and the embedded cloud has a table of its own.
MAY_NAME_DIALECTS = ("cloud/dialect.py", "settings.py", "sandbox/", "demo/")


def compared(tree: ast.AST) -> set[object]:
    """Every constant that something is compared with."""
    nodes = list(ast.walk(tree))
    sides = [
        side for node in nodes if isinstance(node, ast.Compare) for side in (node.left, *node.comparators)
    ]
    sides += [node.value for node in nodes if isinstance(node, ast.MatchValue)]
    flat = [part for side in sides for part in ast.walk(side)]
    return {node.value for node in flat if isinstance(node, ast.Constant)}


def test_no_other_code_asks_which_dialect_it_is() -> None:
    asking = []
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(MAY_NAME_DIALECTS) and compared(ast.parse(path.read_text())) & set(DIALECTS):
            asking.append(name)
    assert asking == []


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


def test_a_name_too_long_keeps_both_its_ends() -> None:
    name = fitting_name(EUCA4, "a" * 200 + "-0f3c9e12")
    assert len(name) == 128
    assert name.startswith("aaa")
    assert name.endswith("-0f3c9e12")


@given(st.text(min_size=1))
def test_whatever_the_name_the_fitting_one_fits(name: str) -> None:
    for dialect in DIALECTS.values():
        if dialect.name_pattern:
            assert dialect.name_pattern.fullmatch(fitting_name(dialect, name))
