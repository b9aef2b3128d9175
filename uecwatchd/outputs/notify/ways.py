"""The ways on which messages are delivered: the program `notify.command`, and addresses by way of apprise."""

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from uecwatchd.config.records import NotifySettings
from uecwatchd.errors import Halted
from uecwatchd.outputs.notify import apprise_process
from uecwatchd.outputs.notify.facts import text_of, title_of
from uecwatchd.system.site_program import SiteProgram, run_site_program
from uecwatchd.system.text import printable

INSTALL = "It is in the extra `notify`: pip install 'uecwatchd[notify]'"
# Before the names of addresses, in the ledger.
URL_PREFIX = "url "
# How the network is reached, for the library that sends.
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
NETWORK_VARIABLES = (*_PROXIES, *(name.upper() for name in _PROXIES), *_AUTHORITIES)
# How apprise marks a message, by outcome.
MARKS: Mapping[str, Literal["success", "warning", "failure", "info"]] = {
    "done": "success",
    "recovered": "success",
    "deferred": "warning",
    "stale": "warning",
    "withdrawn": "warning",
    "rolled-back": "warning",
    "rejected": "failure",
    "halted": "failure",
}


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Reason for a failed delivery, and what to do about it."""

    why: str
    hint: str


@dataclass(frozen=True, slots=True)
class Way:
    """One way. `name` is its name in the ledger, `label` the one for people; neither is secret."""

    name: str
    label: str
    program: SiteProgram
    url: str = ""  #: secret, empty for the program of the administrator

    def __repr__(self) -> str:
        return f"Way({self.name})"

    def deliver(
        self,
        facts: Mapping[str, object],
        *,
        tell: Callable[[str], None],
        check: Callable[[], None],
    ) -> Undelivered | None:
        """Deliver a message. Return None if it was delivered. Raises what `check` raises.

        `tell` is called with each line of output of the administrator's program.
        """
        if self.url:
            mark = MARKS.get(str(facts.get("outcome")), "info")
            given = {"url": self.url, "title": title_of(facts), "body": text_of(facts), "type": mark}
            return self._run(given, tell=_ignore, check=check)
        return self._run(facts, tell=tell, check=check)

    def examine(self) -> Undelivered | None:
        """Check an address without sending anything. None if it is in order."""
        return self._run({"url": self.url}, tell=_ignore, check=_go_on) if self.url else None

    def _run(
        self, facts: Mapping[str, object], *, tell: Callable[[str], None], check: Callable[[], None]
    ) -> Undelivered | None:
        try:
            end = run_site_program(self.program, facts, tell=tell, check=check)
        except Halted as error:
            return Undelivered(f"{error.what.partition(': ')[2]}: {error.why}", error.hint)
        if not end.problem:
            return None
        # The code of our own process says no more than its line.
        why = end.last_line if self.url and end.last_line else end.reason
        return Undelivered(why, INSTALL if self.url and why == apprise_process.MISSING else self._hint())

    def _hint(self) -> str:
        what = "the address and its server" if self.url else "what the program says"
        return f"See {what}; then try: uecwatchd check --notify"


def ways_of(settings: NotifySettings) -> tuple[Way, ...]:
    """Return the configured ways."""
    command = SiteProgram("notify.command", settings.command, settings.timeout)
    ways = [Way("command", "notify.command", command)] if settings.command else []
    names = set[str]()
    for number, secret in enumerate(settings.urls):
        url = secret.get_secret_value()
        scheme = printable(url.partition("://")[0][:20]) if "://" in url else "no scheme"
        label = f"notify.urls[{number}] ({scheme})"
        arguments = [sys.executable, "-I", apprise_process.__file__]
        program = SiteProgram(label, arguments, settings.timeout, NETWORK_VARIABLES, is_secret=True)
        # Not its number: a message that waits must not go to another address when the list has changed.
        name = _name_of(_without_password(url))
        ways.append(Way(name if name not in names else _name_of(url), label, program, url))
        names.add(name)
    return tuple(ways)


def _name_of(text: str) -> str:
    return f"{URL_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _without_password(url: str) -> str:
    """Return an address without its password: with another one it is still the same.

    The user name stays, because for mail it is part of the address.
    """
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{host}{slash}{path}"


def _ignore(_line: str) -> None:
    """Ignore a line: it may be about an address, and only the last one is without secrets."""


def _go_on() -> None:
    """Stop nothing."""
