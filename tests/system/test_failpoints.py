from collections.abc import Iterator

import pytest

from uecwatchd.system import failpoints


@pytest.fixture
def crossed() -> Iterator[list[str]]:
    heard: list[str] = []
    failpoints.listen(heard.append)
    yield heard
    failpoints.listen(lambda _: None)


def test_an_effect_has_a_moment_before_and_a_moment_after(crossed: list[str]) -> None:
    with failpoints.effect("put part"):
        assert crossed == ["before put part"]
    assert crossed == ["before put part", "after put part"]


def test_an_effect_that_failed_has_no_moment_after(crossed: list[str]) -> None:
    with pytest.raises(OSError, match="full"), failpoints.effect("put part"):
        raise OSError("full")
    assert crossed == ["before put part"]
