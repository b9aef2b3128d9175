"""Hosts with an underscore in their names, which botocore refuses and all else takes.

A client is made for a stand-in of such a host, and each of its requests is given the true one before it is
signed. Nobody else ever sees the stand-in: no name server and no cloud.
"""

from typing import Any
from urllib.parse import urlsplit


def alias_url(url: str) -> str:
    """Return the URL with a host that botocore takes; unchanged if botocore takes it as it is."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.replace("_", "u")).geturl()


def restore_host(client: Any, url: str | None) -> None:
    """Have a client that was made for the stand-in of a URL ask its true host."""
    if url is None or alias_url(url) == url:
        return
    true, false = urlsplit(url).netloc, urlsplit(alias_url(url)).netloc

    def name(*, request: Any, **_: object) -> None:
        parts = urlsplit(request.url)
        if parts.netloc == false:
            request.url = parts._replace(netloc=true).geturl()

    client.meta.events.register_first("before-sign.*.*", name)
