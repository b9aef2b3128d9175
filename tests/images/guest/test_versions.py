"""The order of versions, compared with the package manager of this system."""

import random
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uecwatchd.images.guest.versions import release_numbers, version_order

IN_ORDER = [
    "2.6.9",
    "2.6.31-14-generic",
    "2.6.31-20-generic",
    "3.0.0-rc7",
    "3.0.0",
    "3.0.0-1-amd64",
    "4.19.0-9-amd64",
    "4.19.0-10-amd64",
    "5.10.0",
    "6.1-rc8",
    "6.1",
    "6.1.0-rc8-amd64",
    "6.1.0-9-amd64",
    "6.1.0-9-cloud-amd64",
    "6.1.0-57-cloud-amd64",
    "6.11.4-301.fc41.x86_64",
]


def test_versions_are_sorted_as_numbers_and_candidates_come_first() -> None:
    shuffled = IN_ORDER.copy()
    random.Random(1).shuffle(shuffled)  # noqa: S311 (not a secret)
    assert sorted(shuffled, key=version_order) == IN_ORDER


def dpkg_says(first: str, relation: str, second: str) -> bool:
    command = ["dpkg", "--compare-versions", f"0{first}", relation, f"0{second}"]
    return subprocess.run(command, check=False).returncode == 0


VERSIONS = st.text("019.~+ab", min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(first=VERSIONS, second=VERSIONS)
def test_the_order_is_that_of_dpkg(first: str, second: str) -> None:
    orders = version_order(f"0{first}"), version_order(f"0{second}")
    assert dpkg_says(first, "lt", second) == (orders[0] < orders[1])
    assert dpkg_says(first, "gt", second) == (orders[0] > orders[1])


@given(st.lists(st.text(), max_size=5))
def test_any_texts_have_an_order(texts: list[str]) -> None:
    assert sorted(map(version_order, texts)) == sorted(map(version_order, reversed(texts)))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("6.1.0-9-cloud-amd64", "6.1.0-9"),
        ("2.6.28-11-server", "2.6.28-11"),
        ("6.1.0-rc8-amd64", "6.1.0-rc8"),
        ("6.11.4-301.fc41.x86_64", "6.11.4-301"),
        ("linux", "linux"),
    ],
)
def test_the_flavour_of_a_kernel_is_not_part_of_its_release(version: str, expected: str) -> None:
    assert release_numbers(version) == expected
