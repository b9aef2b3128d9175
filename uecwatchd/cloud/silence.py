"""What it means when a cloud gives no answer, or none that could be read."""

import re
from dataclasses import dataclass

from botocore.exceptions import (
    BotoCoreError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from uecwatchd.cloud.answer import Unreadable
from uecwatchd.cloud.connections import AnswerTooLong
from uecwatchd.errors import CloudAway, Halted, UecError

# The words of others are quoted up to this length: enough for every message known, and a stack trace or a web
# page does not flood the journal.
QUOTE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Silence:
    """One way of getting no answer that could be read. `words` is looked for in what the library said."""

    error: type[Exception]
    words: str
    kind: type[UecError]
    why: str
    hint: str

    def fits(self, error: Exception) -> bool:
        said = f"{error} {_cause(error)}"
        return isinstance(error, self.error) and re.search(self.words, said, re.IGNORECASE) is not None


SILENCES = (
    Silence(
        AnswerTooLong,
        "",
        Halted,
        "its answer has no end that we could wait for",
        "Ask its administrator, with the time of day; where it lists very many images, deregister old ones.",
    ),
    Silence(
        SSLError,
        "certificate.verify.failed|doesn't match",
        Halted,
        "its TLS certificate is not one that we trust",
        "Set ca_bundle to the authority that signed it, for instance /etc/ssl/certs/ca-certificates.crt.",
    ),
    Silence(
        SSLError,
        "wrong.version.number|unknown.protocol|http.request",
        Halted,
        "it does not speak TLS at that address",
        "Write http:// instead of https:// in ec2_url or s3_url, or correct the port.",
    ),
    Silence(SSLError, "", CloudAway, "the TLS connection failed", "You need only wait."),
    Silence(
        EndpointConnectionError,
        "name or service not known|name resolution|nodename|no address associated",
        CloudAway,
        "its host name is not known",
        "Compare ec2_url and s3_url with the cloud's eucarc; if they are right, the name server is away.",
    ),
    Silence(
        EndpointConnectionError,
        "",
        CloudAway,
        "nobody answers at its address",
        "See that the cloud runs and that ec2_url and s3_url are its own.",
    ),
    Silence(
        ConnectTimeoutError,
        "",
        CloudAway,
        "nobody answers at its address",
        "See that the cloud runs, that ec2_url and s3_url are its own, and that no firewall stands between.",
    ),
    Silence(ReadTimeoutError, "", CloudAway, "it did not answer in time", "You need only wait."),
    Silence(
        ProxyConnectionError,
        "",
        CloudAway,
        "the proxy on the way to it does not answer",
        "See http_proxy, https_proxy and no_proxy in this service's environment.",
    ),
    Silence(
        ResponseParserError,
        "<html|<!doctype",
        Halted,
        "a web page answered where the cloud should have",
        "Compare ec2_url and s3_url with the cloud's eucarc.",
    ),
    Silence(ResponseParserError, "", CloudAway, "its answer was cut short", "You need only wait."),
    Silence(HTTPClientError, "", CloudAway, "the connection broke", "You need only wait."),
    Silence(IncompleteReadError, "", CloudAway, "the connection broke", "You need only wait."),
    Silence(
        BotoCoreError,
        "",
        Halted,
        "our client library refuses to ask",
        "Compare ec2_url, s3_url and region with the cloud's eucarc.",
    ),
)


def unheard(what: str, error: Exception) -> UecError:
    """Our error for one of botocore's that holds no answer."""
    row = next(row for row in SILENCES if row.fits(error))
    request_id = error.request_id if isinstance(error, Unreadable) else ""
    return row.kind(what, f"{row.why} ({quoted(str(error))})", row.hint, request_id=request_id)


def quoted(words: str) -> str:
    """Somebody else's words as a part of a sentence of ours."""
    line = " ".join(words.split()).strip(": ").rstrip(".")
    return line if len(line) <= QUOTE_CHARACTERS else line[:QUOTE_CHARACTERS] + "…"


def _cause(error: Exception) -> str:
    """What lies under an error of botocore: it keeps the reason of a failed connection out of its message."""
    return str(error.kwargs.get("error", "")) if isinstance(error, BotoCoreError) else ""
