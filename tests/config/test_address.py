"""Accepted addresses, their plain form, and messages about the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.config.address import InvalidAddress, hide_password, read_address

TAKEN = {
    "http://front_end:8773/services/Eucalyptus": "http://front_end:8773/services/Eucalyptus",
    "http://_cloud_._tcp.example/": "http://_cloud_._tcp.example",
    "HTTP://LocalHost:80/services/Walrus/": "http://localhost/services/Walrus",
    "https://cloud.example:443": "https://cloud.example",
    "https://cloud.example:80": "https://cloud.example:80",
    "http://cloud.example.:8773": "http://cloud.example.:8773",
    "http://bücher.example:8773/a": "http://xn--bcher-kva.example:8773/a",
    "http://192.0.2.1:8773/": "http://192.0.2.1:8773",
    "http://[2001:DB8:0::1]:8773/services/Eucalyptus": "http://[2001:db8::1]:8773/services/Eucalyptus",
    "http://[::1]": "http://[::1]",
    "http://cloud:": "http://cloud",
    "http://a/x;y=1": "http://a/x;y=1",
    "http://cloud:0080/x": "http://cloud/x",
    "http://[fd00::A]:80/x": "http://[fd00::a]/x",
    "http://cloud//services//Walrus": "http://cloud/services/Walrus",
    "http://cloud/%7euser/a%2fb": "http://cloud/~user/a%2Fb",
    "http://cloud/%41%5a%5f%2d%30%7b%40%5b%60": "http://cloud/AZ_-0%7B%40%5B%60",
    "http://cloud/a/../services/./Walrus/..": "http://cloud/services",
    "http://cloud/../../services": "http://cloud/services",
    "http://cloud/%2e%2e/services": "http://cloud/services",
}
REFUSED = {
    "http://-bad.example:8773/services/Eucalyptus": "the part '-bad'",
    "http://bad-.example": "the part 'bad-'",
    "http://a..example": "the part ''",
    "http://.": "the part ''",
    "http://" + "a" * 64 + ".example": "the part 'aaa",
    "http://" + "a." * 130 + "example": "longer than 253",
    "http://front end:8773": "a space",
    "http://front\nend:8773": "a control character",
    "http://cloud\u200b.example": "a control character",
    " http://cloud": "a space",
    "http://cloud:99999/": "its port",
    "http://cloud:0/": "its port",
    "http://cloud:87a3/": "its port",
    "http://cloud:-1/": "its port",
    "cloud.example:8773/services/Eucalyptus": "does not begin with http://",
    "/services/Eucalyptus": "does not begin with http://",
    "//cloud.example/services": "does not begin with http://",
    "http:/cloud/services": "does not begin with http://",
    "http//cloud": "does not begin with http://",
    "": "does not begin with http://",
    "ftp://cloud.example": "begins with ftp://",
    "htp://cloud.example": "begins with htp://",
    "s3://bucket": "begins with s3://",
    "http://user:s3cret@cloud:8773/": "a user or a password",
    "http://user@cloud:8773/": "a user or a password",
    "http:///services/Eucalyptus": "names no host",
    "http://:8773/services": "names no host",
    "http://[::1": "not written like one",
    "http://[::g]/": "not written like one",
    "http://[fe80::12345]/": "not written like one",
    "http://cl%61ud.example": "the part 'cl%61ud'",
    "http://cl\\oud.example": "the part 'cl\\\\oud'",
    "http://cloud/?Action=x": "with ? or #",
    "http://cloud/#top": "with ? or #",
    "http://cloud/services/Eucalyptüs": "its path has ü",
    "http://cloud/<html>": "its path has <",
    "http://cloud/100%": "two digits should follow",
    "http://cloud/%7": "two digits should follow",
    "http://cloud/%zz": "two digits should follow",
    "http://\u2488.example": "the part ''",
    "http://" + "ü" * 70 + ".example": "name servers",
}


@pytest.mark.parametrize("text", TAKEN)
def test_an_address_has_one_normal_form(text: str) -> None:
    assert read_address(text) == TAKEN[text]
    assert read_address(TAKEN[text]) == TAKEN[text]


@pytest.mark.parametrize("text", REFUSED)
def test_an_invalid_address_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        read_address(text)
    assert REFUSED[text] in str(caught.value)


@given(st.text(), st.sampled_from(["", "http://", "https://", "http://[", "http://a:"]))
def test_any_text_is_an_address_or_refused(text: str, begins: str) -> None:
    try:
        address = read_address(begins + text)
    except InvalidAddress:
        return
    assert address.isascii()
    assert read_address(address) == address


@pytest.mark.parametrize(
    "text", ["http://user:s3cret@cloud/x", "http://s3cret@cloud", "https://a:s3cret@b@c/"]
)
def test_a_password_is_never_shown(text: str) -> None:
    assert "s3cret" not in hide_password(text)
    assert hide_password(text).startswith("http")
