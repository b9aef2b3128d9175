"""Where a service is asked: its URL, read strictly and written in one way.

What a URL may be is more than what a service's address may be, and each library that it passes through
refuses another part of the rest, some with a traceback. So it is decided here, once, with a sentence.
It is written as it goes over the wire, since a signature covers it, and that is made of what we wrote:
whatever a library, a proxy or a server might write in another way is written in the usual one here.
A host may be an IPv4 or IPv6 address or a name; names with underscores are taken, since name servers and web
servers take them, and names in other scripts are written as name servers know them (`xn--…`).
"""

import ipaddress
import re
from urllib.parse import SplitResult, unquote, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}

# Limits of the domain name system.
LONGEST_HOST = 253
LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# To the last of them: somebody's password may hold one itself, or a slash, and be no less secret for that.
PASSWORD = re.compile(r"(?<=//).*@", re.DOTALL)
# What may stand there as it is.
PLAIN = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2}")
# What RFC 3986 lets stand in a path.
PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")
ESCAPE = re.compile(r"%(?:[0-9A-Fa-f]{2})?")
# Of letters, digits and `-._~`, which need none.
NEEDLESS_ESCAPE = re.compile(r"%(2[DE]|3[0-9]|[46][1-9A-F]|[57][0-9A]|5F|7E)")


class NoAddress(ValueError):
    """What is wrong with it, as a sentence that begins with `it`."""


def read_address(text: str) -> str:
    """Return the URL as it is sent: its host in small letters, without its scheme's own port, or needless
    escapes or a slash at the end.

    Raises NoAddress.
    """
    parts = _parts(text)
    path = _path(parts)
    port = _port(parts)
    scheme = parts.scheme.lower()
    explicit = "" if port in (None, DEFAULT_PORTS[scheme]) else f":{port}"
    return f"{scheme}://{_host(parts)}{explicit}{path}"


def shown(text: str) -> str:
    """A URL as it may be printed, without a user's name or password in it."""
    return PASSWORD.sub("***@", text)


def read_user(text: str) -> str:
    """Return a URL without the user and the password in it, which must be written as they are in URLs.

    Raises NoAddress.
    """
    found = PASSWORD.search(text)
    odd = PLAIN.sub("", found[0][:-1]) if found else ""
    if odd:
        escaped = "".join(f"%{byte:02X}" for byte in odd[0].encode(errors="surrogateescape"))
        raise NoAddress(f"its user or password has {odd[0]!r} in it, which is written {escaped} there")
    return PASSWORD.sub("", text)


def _parts(text: str) -> SplitResult:
    if any(character.isspace() or not character.isprintable() for character in text):
        raise NoAddress("it has a space or a control character in it")
    scheme = SCHEME.match(text)
    if not scheme:
        raise NoAddress("it does not begin with http:// or https://")
    if scheme[1].lower() not in DEFAULT_PORTS:
        raise NoAddress(f"it begins with {scheme[0]} instead of http:// or https://")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise NoAddress("its host is not written like one") from error
    if "@" in parts.netloc:
        raise NoAddress("it has a user or a password in it")
    if "?" in text or "#" in text:
        raise NoAddress("it goes on after its path, with ? or #")
    return parts


def _path(parts: SplitResult) -> str:
    if unknown := PATH.sub("", parts.path):
        raise NoAddress(f"its path has {unknown[0]} in it")
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
        raise NoAddress("its path has a % in it that two digits should follow")
    return unquote(written) if NEEDLESS_ESCAPE.fullmatch(written) else written


def _port(parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise NoAddress("its port is not a number from 1 to 65535")
    return port


def _host(parts: SplitResult) -> str:
    host = parts.hostname
    if not host:
        raise NoAddress("it names no host")
    if "[" in parts.netloc:
        return f"[{_ipv6(host)}]"
    name = _in_letters(host)
    for label in name.removesuffix(".").split("."):
        if not LABEL.fullmatch(label):
            raise NoAddress(f"its host has the part {label!r}, which no name may have")
    if len(name) > LONGEST_HOST:
        raise NoAddress(f"its host is longer than {LONGEST_HOST} characters")
    return name


def _ipv6(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError as error:
        raise NoAddress(f"{host} is no IPv6 address") from error


def _in_letters(host: str) -> str:
    """The name as name servers know it."""
    if host.isascii():
        return host.lower()
    try:
        return host.encode("idna").decode().lower()
    except UnicodeError as error:
        raise NoAddress(f"its host {host} is not a name that name servers know") from error
