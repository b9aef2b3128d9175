"""Answers that are not the cloud's: a proxy's, a gateway's, a log-in page, or the advice to ask elsewhere.

They say nothing of an image, and nothing of our credentials: whatever their status, they are about the way to
the cloud. So they are recognised before botocore reads them. It would follow some, and fail over others.
What servers of clouds say themselves is XML, or in the first two generations a line that begins with
`Failure:`; some wrap their own words in a page. A page with 404 or 405 is left alone unless a proxy has
signed it: many a service says so that it lacks a path. And what means the same from anybody is left to the
table of refusals.
"""

import http.client
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.parsers import ResponseParserError

from uecwatchd.clouds.errors.response_repair import TAG, element
from uecwatchd.clouds.errors.table import HTTP_WHERE_TLS_IS, ROWS, SAID_BY_ANYBODY
from uecwatchd.config.values import REGION
from uecwatchd.errors import CloudAway, Halted, UecError
from uecwatchd.system.text import printable

REDIRECTS = frozenset({301, 302, 303, 307, 308})
BAD_REQUEST, PROXY_AUTHENTICATION, NETWORK_AUTHENTICATION = 400, 407, 511
LACKS_PATH = frozenset({404, 405})

# How proxies sign what they say themselves, by header and what it then holds. What they hand on may bear
# `Via`, `Proxy-Connection`, and a `Proxy-Status` without an error.
PROXY_HEADERS = {"x-squid-error": ".", "proxy-authenticate": ".", "proxy-status": r";\s*error="}
PROXY_SERVERS = re.compile(r"squid|proxy|privoxy|varnish|zscaler|blue ?coat|mikrotik|fortigate|sophos", re.I)

# The text before a page is matched once: a hostile page must not make us try each way to divide it.
PAGE = re.compile(r"(?>\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*)<(?:!doctype html|html)\b", re.I | re.S)
OWN_WORDS = re.compile(r"\s*(<|Failure:)")
TITLE = "(?i:title|h1)"

# A page's title or a place elsewhere is quoted up to this length.
QUOTE_CHARACTERS = 200
READ_BYTES = 64 * 1024

SEE_ADDRESSES = "Compare ec2_url and s3_url with the cloud's eucarc."
SEE_PROXY = (
    "See http_proxy, https_proxy and no_proxy in this service's environment: a cloud that can be reached"
    " without a proxy is best named in no_proxy."
)


@dataclass(frozen=True, slots=True)
class ForeignAnswer:
    """The meaning of an answer that is not the cloud's."""

    kind: type[UecError]
    why: str
    hint: str


class NotFromTheCloud(ResponseParserError):  # type: ignore[misc]  # botocore has no types
    """An answer of somebody else."""

    def __init__(self, foreign: ForeignAnswer) -> None:
        super().__init__(foreign.why)
        self.foreign = foreign


def refuse_foreign_answers(*, proxy: str, regional: bool) -> Callable[..., None]:
    """Return a listener for botocore's event `before-parse` that raises NotFromTheCloud.

    `proxy` is the proxy that is asked, if any; `regional` says that the cloud may redirect us to another of
    its regions.
    """

    def listen(*, response_dict: Mapping[str, Any], **_: object) -> None:
        body = response_dict["body"]
        text = body[:READ_BYTES].decode(errors="replace") if isinstance(body, bytes) else ""
        headers = {name.lower(): str(value) for name, value in response_dict["headers"].items()}
        status = response_dict["status_code"]
        if foreign := detect_foreign_answer(status, headers, text, proxy=proxy, regional=regional):
            raise NotFromTheCloud(foreign)

    return listen


def detect_foreign_answer(
    status: int, headers: Mapping[str, str], text: str, *, proxy: str, regional: bool
) -> ForeignAnswer | None:
    """Return the kind of an answer that is not the cloud's, None if it may be the cloud's.

    `headers` have names in lower case; `text` is the beginning of the body.
    """
    if status in REDIRECTS:
        named = REGION.fullmatch(headers.get("x-amz-bucket-region", ""))
        return None if regional and named else _elsewhere(status, headers, text)
    if status in SAID_BY_ANYBODY or (status == BAD_REQUEST and re.search(HTTP_WHERE_TLS_IS, text)):
        return None
    signature = _signature(headers)
    who = _who(proxy, signature)
    status_line = f"{status} {http.client.responses.get(status, '')}".strip()
    if status == PROXY_AUTHENTICATION:
        return ForeignAnswer(
            Halted, f"{who or 'a proxy'} wants to know who we are ({status_line})", _log_in(proxy)
        )
    if not _is_strange(status, headers, text, by_proxy=bool(proxy or signature)):
        return None
    title = _quoted(TAG.sub(" ", element(TITLE, text)))
    quoted = f"{status_line}: {title}" if title else status_line
    if status >= 500 and status != NETWORK_AUTHENTICATION:
        why = f"{who} does not reach it" if who else "something before it answered that it is not there"
        hint = SEE_PROXY if who else "No action is needed."
        return ForeignAnswer(CloudAway, f"{why} ({quoted})", hint)
    why = f"{who} answered in its place" if who else "a web page answered where the cloud should have"
    return ForeignAnswer(Halted, f"{why} ({quoted})", SEE_PROXY if who else SEE_ADDRESSES)


def _is_strange(status: int, headers: Mapping[str, str], text: str, *, by_proxy: bool) -> bool:
    if status == NETWORK_AUTHENTICATION:
        return True
    relayed = "via" in headers
    if PAGE.match(text):
        if by_proxy or relayed:
            return status not in LACKS_PATH or bool(_signature(headers))
        return status not in LACKS_PATH and not _has_words_of_a_cloud(text)
    if status < 400 or OWN_WORDS.match(text):
        return False
    return bool(_signature(headers)) or (relayed and bool(text.strip()))


def _has_words_of_a_cloud(text: str) -> bool:
    words = " ".join(text.split())
    return any(row.words and re.search(row.words, words, re.IGNORECASE) for row in ROWS)


def _signature(headers: Mapping[str, str]) -> str:
    """Return the header that identifies an answer as a proxy's own, "" if there is none."""
    server = headers.get("server", "")
    if PROXY_SERVERS.search(server):
        return server
    named = next((name for name, said in PROXY_HEADERS.items() if re.search(said, headers.get(name, ""))), "")
    return headers.get("via") or server or named if named else ""


def _who(proxy: str, signature: str) -> str:
    signed = f" ({_quoted(signature)})" if signature else ""
    if proxy:
        return f"the proxy {proxy}{signed}"
    return f"a proxy on the way{signed}" if signature else ""


def _log_in(proxy: str) -> str:
    if not proxy:
        return (
            "Ask who runs the network for a way to the cloud without it, or through a proxy with a password."
        )
    return "Write user and password into the proxy's address, http://USER:PASSWORD@HOST:PORT. " + SEE_PROXY


def _elsewhere(status: int, headers: Mapping[str, str], text: str) -> ForeignAnswer:
    place = _quoted(headers.get("location") or element("Endpoint", text))
    if not place:
        why = f"the service says that it is elsewhere ({status}), and not where"
        return ForeignAnswer(Halted, why, SEE_ADDRESSES)
    return ForeignAnswer(
        Halted,
        f"the service says that it is at {place} ({status})",
        "If that is the cloud, set ec2_url or s3_url to it; a log-in page is something on the way that wants"
        " to know who we are.",
    )


def _quoted(words: str) -> str:
    line = printable(" ".join(words.split()))
    return line if len(line) <= QUOTE_CHARACTERS else line[:QUOTE_CHARACTERS] + "…"
