"""The names of the ways: a message that waits finds its address again."""

import pytest
from pydantic import SecretStr

from uecwatchd.config.records import NotifySettings
from uecwatchd.outputs.notify.ways import ways_of


def names(*urls: str) -> list[str]:
    return [way.name for way in ways_of(NotifySettings(urls=tuple(map(SecretStr, urls))))]


@pytest.mark.parametrize(
    ("url", "corrected"),
    [
        ("mailto://me:wrong@example.com", "mailto://me:right@example.com"),
        ("jsons://me:wr@ng@example.com:8/x/y@z?a=b", "jsons://me:right@example.com:8/x/y@z?a=b"),
    ],
)
def test_an_address_keeps_its_name_with_another_password(url: str, corrected: str) -> None:
    assert names(url) == names(corrected)


def test_addresses_that_differ_otherwise_have_names_of_their_own() -> None:
    urls = (
        "mailto://me:a@example.com",
        "mailto://you:a@example.com",
        "mailto://me:a@example.org",
        "mailtos://me:a@example.com",
        "mailto://me:b@example.com",  # the same user, and both are wanted
        "tgram://123:token/456",
        "tgram://123:other/456",
        "nonsense",
    )
    assert len({*names(*urls)}) == len(urls)
