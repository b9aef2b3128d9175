"""The URL of a service, parsed strictly and written in one normal form.

A URL can be more than the address of a service, and each library on the way refuses another part of it, some
with a traceback. So this module decides once, with a sentence. The address is written as it goes over the
wire, because a signature covers it: everything that a library, a proxy or a server could write in another way
has its usual form here. A host may be an IPv4 or IPv6 address or a name. Names with underscores are accepted,
as name servers and web servers do, and names in other scripts are converted to the form in the domain name
system (`xn--…`).
"""

import ipaddress
import re
from urllib.parse import SplitResult, unquote, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}

# Limits of the domain name system.
LONGEST_HOST = 253
LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# Up to the last @: a password can contain one, or a slash, and must still be hidden.
PASSWORD = re.compile(r"(?<=//).*@", re.DOTALL)
# Characters that need no escape in a user or password.
PLAIN = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2}")
# Characters that RFC 3986 allows in a path.
PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")
ESCAPE = re.compile(r"%(?:[0-9A-Fa-f]{2})?")
# Escapes of letters, digits and `-._~`, which need none.
NEEDLESS_ESCAPE = re.compile(r"%(2[DE]|3[0-9]|[46][1-9A-F]|[57][0-9A]|5F|7E)")


class InvalidAddress(ValueError):
    """The reason why a text is not an address, as a sentence that begins with `it`."""


def read_address(text: str) -> str:
    """Return the URL as it is sent.

    The host is in lower case. The default port of the scheme, unnecessary escapes and a slash at the end are
    left out. Raises InvalidAddress.
    """
    parts = _parts(text)
    path = _path(parts)
    port = _port(parts)
    scheme = parts.scheme.lower()
    explicit = "" if port in (None, DEFAULT_PORTS[scheme]) else f":{port}"
    return f"{scheme}://{_host(parts)}{explicit}{path}"


def hide_password(text: str) -> str:
    """Return a URL without the name and password of a user, so that it can be printed."""
    return PASSWORD.sub("***@", text)


def strip_user(text: str) -> str:
    """Return a URL without user and password.

    Raises InvalidAddress if they are not escaped as URLs require.
    """
    found = PASSWORD.search(text)
    unsafe = PLAIN.sub("", found[0][:-1]) if found else ""
    if unsafe:
        escaped = "".join(f"%{byte:02X}" for byte in unsafe[0].encode(errors="surrogateescape"))
        raise InvalidAddress(
            f"its user or password has {unsafe[0]!r} in it, which is written {escaped} there"
        )
    return PASSWORD.sub("", text)


def _parts(text: str) -> SplitResult:
    if any(character.isspace() or not character.isprintable() for character in text):
        raise InvalidAddress("it has a space or a control character in it")
    scheme = SCHEME.match(text)
    if not scheme:
        raise InvalidAddress("it does not begin with http:// or https://")
    if scheme[1].lower() not in DEFAULT_PORTS:
        raise InvalidAddress(f"it begins with {scheme[0]} instead of http:// or https://")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise InvalidAddress("its host is not written like one") from error
    if "@" in parts.netloc:
        raise InvalidAddress("it has a user or a password in it")
    if "?" in text or "#" in text:
        raise InvalidAddress("it goes on after its path, with ? or #")
    return parts


def _path(parts: SplitResult) -> str:
    if unknown := PATH.sub("", parts.path):
        raise InvalidAddress(f"its path has {unknown[0]} in it")
    kept: list[str] = []
    for step in ESCAPE.sub(_escape, parts.path).split("/"):
        if step == "..":
            del kept[-1:]
        elif step not in ("", "."):
            kept.append(step)
    return "".join(f"/{step}" for step in kept)


def _escape(found: re.Match[str]) -> str:
    written = found[0].upper()
    if written == "%":
        raise InvalidAddress("its path has a % in it that two digits should follow")
    return unquote(written) if NEEDLESS_ESCAPE.fullmatch(written) else written


def _port(parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise InvalidAddress("its port is not a number from 1 to 65535")
    return port


def _host(parts: SplitResult) -> str:
    host = parts.hostname
    if not host:
        raise InvalidAddress("it names no host")
    if "[" in parts.netloc:
        return f"[{_ipv6(host)}]"
    name = _in_letters(host)
    for label in name.removesuffix(".").split("."):
        if not LABEL.fullmatch(label):
            raise InvalidAddress(f"its host has the part {label!r}, which no name may have")
    if len(name) > LONGEST_HOST:
        raise InvalidAddress(f"its host is longer than {LONGEST_HOST} characters")
    return name


def _ipv6(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError as error:
        raise InvalidAddress(f"{host} is no IPv6 address") from error


def _in_letters(host: str) -> str:
    """Return the name in ASCII, as name servers know it."""
    if host.isascii():
        return host.lower()
    try:
        return host.encode("idna").decode().lower()
    except UnicodeError as error:
        raise InvalidAddress(f"its host {host} is not a name that name servers know") from error
