"""The meaning of no answer from a cloud, or of one that cannot be read."""

import re
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from uecwatchd.clouds.errors.foreign_answers import SEE_PROXY, NotFromTheCloud
from uecwatchd.clouds.errors.response_repair import CompressedAnswer, HugeAnswer, UnreadableAnswer
from uecwatchd.clouds.errors.table import SPEAKS_TLS, WRITE_HTTPS
from uecwatchd.clouds.exchange_limits import AnswerTooLong
from uecwatchd.errors import CloudAway, Halted, UecError

# The words of others are quoted up to this length: enough for every message known, and a stack trace or a web
# page does not flood the journal.
QUOTE_CHARACTERS = 300

# A server that takes TLS at all does so at once.
HANDSHAKE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class ConnectionFailure:
    """One kind of failed exchange. `words` is searched for in the library's message."""

    error: type[Exception]
    words: str
    kind: type[UecError]
    why: str
    hint: str

    def fits(self, error: Exception) -> bool:
        # The message of one of botocore's lacks the reason of a failed connection.
        cause = error.kwargs.get("error", "") if isinstance(error, BotoCoreError) else ""
        message = f"{error} {cause}"
        return isinstance(error, self.error) and re.search(self.words, message, re.IGNORECASE) is not None


# An old cloud is best left as it is, and given a newer face.
NEWER_TLS = (
    "Ask its administrator for TLS 1.2, or put a TLS proxy that speaks both before it, such as stunnel,"
    " and set ec2_url and s3_url to that."
)
TLS_THERE = ConnectionFailure(
    ConnectionClosedError,
    r"BadStatusLine\('\\x15\\x03",  # the answer is a TLS alert
    Halted,
    SPEAKS_TLS,
    WRITE_HTTPS,
)

CONNECTION_FAILURES = (
    ConnectionFailure(
        AnswerTooLong,
        "",
        Halted,
        "its answer has no end that we could wait for",
        "Ask its administrator, with the time of day; where it lists very many images, deregister old ones.",
    ),
    ConnectionFailure(
        SSLError,
        "certificate has expired",
        Halted,
        "its TLS certificate has expired",
        "Ask its administrator for a new one; if it is still valid, our clock is wrong: see `date -u`.",
    ),
    ConnectionFailure(
        SSLError,
        "not yet valid",
        Halted,
        "its TLS certificate is not valid yet",
        "See by `date -u` whether our clock is right; if it is, ask its administrator for a valid one.",
    ),
    ConnectionFailure(
        SSLError,
        "doesn't match|does not match|mismatch|subjectAltName",
        Halted,
        "its TLS certificate is for another host name",
        "Write a name that is in its certificate in ec2_url and s3_url, or ask its administrator for a"
        " certificate with this one.",
    ),
    ConnectionFailure(
        SSLError,
        "too.weak|too.small",
        Halted,
        "a key of its TLS is too weak for this machine",
        "Ask its administrator for a certificate with an RSA key of 2048 bits and SHA-256, and for current"
        " ciphers.",
    ),
    ConnectionFailure(
        SSLError,
        r"no certificate or crl|\[X509|PEM lib|no such file|permission denied",
        Halted,
        "the file that ca_bundle names holds no certificate that can be read",
        "Set ca_bundle to a file in PEM form with the certificate of the authority that signed the cloud's.",
    ),
    ConnectionFailure(
        SSLError,
        "certificate.verify.failed",
        Halted,
        "its TLS certificate is not one that we trust",
        "Set ca_bundle to the authority that signed it, for instance /etc/ssl/certs/ca-certificates.crt;"
        " where a proxy looks into TLS, that is the proxy's.",
    ),
    ConnectionFailure(
        SSLError,
        "wrong.version.number|unknown.protocol|http.request|record layer failure|packet length",
        Halted,
        "it does not speak TLS at that address",
        "Write http:// instead of https:// in ec2_url or s3_url, or correct the port.",
    ),
    ConnectionFailure(
        SSLError,
        "unsupported.protocol|protocol.version|legacy sigalg|no protocols|version too low",
        Halted,
        "it speaks no newer TLS than 1.1, which this machine refuses",
        NEWER_TLS,
    ),
    ConnectionFailure(
        SSLError,
        "unrecognized.name",
        Halted,
        "the TLS server at that address knows no host of that name",
        "Write the name that the server has for the cloud in ec2_url and s3_url.",
    ),
    ConnectionFailure(
        SSLError,
        r"certificate.required|alert.(bad|no|unknown|unsupported).c\w+",
        Halted,
        "it wants a TLS certificate of ours, and we have none",
        "Ask its administrator for an address without: who we are is shown by signatures.",
    ),
    ConnectionFailure(
        SSLError,
        "alert|shared cipher|no ciphers|legacy renegotiation|handshake failure",
        Halted,
        "its TLS and ours have nothing in common",
        NEWER_TLS,
    ),
    ConnectionFailure(SSLError, "", CloudAway, "the TLS connection failed", "No action is needed."),
    ConnectionFailure(
        EndpointConnectionError,
        "name or service not known|name resolution|nodename|no address associated",
        CloudAway,
        "its host name is not known",
        "Compare ec2_url and s3_url with the cloud's eucarc; if they are right, the name server is away.",
    ),
    ConnectionFailure(
        EndpointConnectionError,
        "",
        CloudAway,
        "nobody answers at its address",
        "See that the cloud runs and that ec2_url and s3_url are its own.",
    ),
    ConnectionFailure(
        ConnectTimeoutError,
        "",
        CloudAway,
        "nobody answers at its address",
        "See that the cloud runs, that ec2_url and s3_url are its own, and that no firewall stands between.",
    ),
    ConnectionFailure(ReadTimeoutError, "", CloudAway, "it did not answer in time", "No action is needed."),
    ConnectionFailure(
        ProxyConnectionError,
        "tunnel connection failed: 4",
        Halted,
        "the proxy on the way to it lets us not through",
        SEE_PROXY,
    ),
    ConnectionFailure(
        ProxyConnectionError,
        "tunnel connection failed",
        CloudAway,
        "the proxy on the way does not reach it",
        SEE_PROXY,
    ),
    ConnectionFailure(
        ProxyConnectionError,
        "",
        CloudAway,
        "the proxy on the way to it does not answer",
        SEE_PROXY,
    ),
    ConnectionFailure(
        CompressedAnswer,
        "",
        Halted,
        "its answers are packed, which we did not ask for",
        "Have the web server or proxy that stands before it leave them as they are (nginx: gzip off;).",
    ),
    ConnectionFailure(
        HugeAnswer,
        "",
        Halted,
        "its answer is like none that a cloud gives",
        "See that ec2_url and s3_url are the cloud's own; its administrator may know the request.",
    ),
    ConnectionFailure(ResponseParserError, "", CloudAway, "its answer was cut short", "No action is needed."),
    TLS_THERE,
    ConnectionFailure(
        ConnectionClosedError,
        "BadStatusLine",
        Halted,
        "what answers at its address does not speak HTTP",
        "Compare host and port in ec2_url and s3_url with the cloud's eucarc.",
    ),
    ConnectionFailure(HTTPClientError, "", CloudAway, "the connection broke", "No action is needed."),
    ConnectionFailure(IncompleteReadError, "", CloudAway, "the connection broke", "No action is needed."),
    ConnectionFailure(
        InvalidRegionError,
        "",
        Halted,
        "it sends us to a region that is none",
        "Compare ec2_url, s3_url and region with the cloud's eucarc.",
    ),
    ConnectionFailure(
        BotoCoreError,
        "",
        Halted,
        "our client library refuses to ask",
        "Compare ec2_url, s3_url and region with the cloud's eucarc.",
    ),
)


def translate_connection_error(what: str, error: Exception) -> UecError:
    """Return our error for one of botocore's without an answer, or without one of the cloud's."""
    if isinstance(error, NotFromTheCloud):
        return error.foreign.kind(what, error.foreign.why, error.foreign.hint)
    row = next(row for row in CONNECTION_FAILURES if row.fits(error))
    if isinstance(error, ConnectionClosedError) and _speaks_tls(str(error.kwargs.get("endpoint_url", ""))):
        row = TLS_THERE
    request_id = error.request_id if isinstance(error, UnreadableAnswer) else ""
    return row.kind(what, f"{row.why} ({quoted(_reason_of(error))})", row.hint, request_id=request_id)


def _reason_of(error: Exception) -> str:
    """Return the library's words without a proxy's password and without the proxy's own words."""
    if not isinstance(error, ProxyConnectionError):
        return str(error)
    reason = error.kwargs.get("error")
    reason = getattr(reason, "original_error", reason)
    return f"{re.split('[/@]+', str(error.kwargs['proxy_url']).rstrip('/'))[-1]}: {reason}"


def _speaks_tls(url: str) -> bool:
    """Tell whether a server that hung up on plain HTTP takes TLS: most say nothing before they do."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return False
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 80), HANDSHAKE_SECONDS) as line,
            context.wrap_socket(line, server_hostname=parts.hostname),
        ):
            return True
    except (OSError, ValueError):
        return False


def quoted(words: str) -> str:
    """Quote a stranger's words as part of a sentence of ours."""
    line = " ".join(words.split()).strip(": ").rstrip(".")
    return line if len(line) <= QUOTE_CHARACTERS else line[:QUOTE_CHARACTERS] + "…"
