"""A request's head as it was sent, before percent signs are decoded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from werkzeug.wrappers import Request

Pairs = tuple[tuple[str, str], ...]

CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # characters that no key and no parameter may have


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's head as it was sent: `path` and `query` percent-encoded, header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


def read_head(request: Request) -> RequestHead:
    """Read the request's head as sent; its target may begin with scheme and host."""
    target: str = request.environ["RAW_URI"]
    if not target.startswith("/"):
        parts = urlsplit(target)
        target = f"{parts.path or '/'}?{parts.query}"
    path, _, query = target.partition("?")
    headers = {name.lower(): value for name, value in request.headers.items()}
    return RequestHead(request.method, path, query, headers)


def read_pairs(query: str) -> Pairs:
    """Read the pairs of a query string, in which a plus is a plus."""
    cut = (item.partition("=") for item in query.split("&") if item)
    return tuple((unquote(name), unquote(value)) for name, _, value in cut)
