"""The proxy between us and a cloud, as the environment names it, and the hosts that need none.

`no_proxy` is read as curl reads it, since it has most likely been tried with curl: a comma or space between
entries; `*` alone for every host; a name for itself and all names that end in it after a dot, whatever dots
it begins or ends with; an address for itself, with or without brackets; a network as ADDRESS/BITS. An entry
with a port is for that port alone, as Python has it.
Hosts of this machine are never asked through a proxy.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from uecwatchd.config.address import DEFAULT_PORTS, InvalidAddress, hide_password, read_address, strip_user
from uecwatchd.errors import Halted

# Without an address it is one of Amazon's: all are in this domain as far as proxies go.
HTTPS_EVERYWHERE = "https://amazonaws.com"

KIND = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
PORT = re.compile(r"(?P<host>\[[^]]*\]|[^:]*):(?P<port>[0-9]+)")


def proxies_for(url: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the proxy for a URL as botocore wants it, by the URL's scheme; empty if there is none."""
    _, proxy = _named(url, environ)
    no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY", "")
    if not proxy or is_loopback(url) or is_exempt(url, no_proxy):
        return {}
    return {urlsplit(url).scheme: proxy if KIND.match(proxy) else f"http://{proxy}"}


def check_proxy(cloud: str, url: str, environ: Mapping[str, str] = os.environ) -> None:
    """Raise Halted if the proxy for a URL is of an unknown kind, or no proxy at all."""
    for proxy in proxies_for(url, environ).values():
        try:
            read_address(strip_user(proxy))
        except InvalidAddress as error:
            variable, _ = _named(url, environ)
            raise Halted(
                f"cloud {cloud}: cannot use the proxy {hide_password(proxy)}",
                f"{error}, and only HTTP proxies can be used ({variable} in this service's environment)",
                f"Correct {variable}, or name the cloud's host in no_proxy if it can be reached without.",
            ) from error


def name_proxy(url: str, environ: Mapping[str, str] = os.environ) -> str:
    """Name the proxy for a URL in a sentence, without its password; "" if there is none."""
    return next(map(hide_password, proxies_for(url, environ).values()), "")


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_exempt(url: str, no_proxy: str) -> bool:
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    return any(_covers(entry.lower(), host, port) for entry in re.split(r"[,\s]+", no_proxy) if entry)


def _covers(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    if found := PORT.fullmatch(entry):
        return int(found["port"]) == port and _covers(found["host"], host, port)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = entry.strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False


def _named(url: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the variable that names a proxy for a URL, and its value."""
    name = f"{urlsplit(url).scheme}_proxy"
    variable = name if environ.get(name) else name.upper()
    return variable, environ.get(variable, "")
