"""The process that sends one message with the library apprise: `python` with the path of this file.

It imports nothing of this package. It gets an address and a message as JSON on its standard input, never as
an argument, since addresses have passwords. It ends with 0, or says in one line why it could not send. As
a process of its own it can be ended by a time limit, whatever the library waits for. Without a title it only
checks the address.
"""

import json
import logging
import re
import sys
from urllib.parse import unquote

EX_OK, EX_UNAVAILABLE, EX_TEMPFAIL, EX_CONFIG = 0, 69, 75, 78
# A shorter piece of an address, such as "com", is no secret, and would be found in any sentence.
SECRET_CHARACTERS = 4
MISSING = "the library apprise is not installed"
UNKNOWN = "apprise does not know this kind of address, or it is incomplete"


class Reasons(logging.Handler):
    """The last warning of the library: nothing else says why it has failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def main() -> int:
    given = json.load(sys.stdin.buffer)
    try:
        import apprise
    except ImportError:
        return _said(MISSING, EX_UNAVAILABLE)
    reasons = Reasons()
    logger = logging.getLogger("apprise")
    logger.addHandler(reasons)
    logger.propagate = False
    sender = apprise.Apprise.instantiate(given["url"])
    if not sender:
        return _said(UNKNOWN, EX_CONFIG)
    if "title" not in given:
        return EX_OK
    sending = apprise.Apprise()
    sending.add(sender)
    title, body, kind = (given[name] for name in ("title", "body", "type"))
    if sending.notify(body, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT):
        return EX_OK
    return _said(without_secrets(reasons.last or "it does not say why", given["url"]), EX_TEMPFAIL)


def without_secrets(text: str, url: str) -> str:
    """Return a text without any piece of an address but its scheme: each may be a password or a token."""
    pieces = re.split(r"[/:@?&=;,]", url.partition("://")[2])
    for piece in sorted({*pieces, *map(unquote, pieces)}, key=len, reverse=True):
        if len(piece) >= SECRET_CHARACTERS:
            text = text.replace(piece, "***")
    return text


def _said(reason: str, code: int) -> int:
    sys.stdout.buffer.write(f"{reason}\n".encode("utf-8", "backslashreplace"))
    return code


if __name__ == "__main__":
    sys.exit(main())
