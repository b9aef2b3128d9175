"""Names of hosts as people type them, where several hosts have one ledger."""

from collections.abc import Iterable

from uecwatchd.config.documents import did_you_mean
from uecwatchd.errors import Rejected
from uecwatchd.ledger.sessions import HostSession

NO_FLEET = "This host has its ledger for itself: there is no dsn under [fleet]."


def check_host(name: str, hosts: Iterable[HostSession]) -> None:
    """Raise Rejected if no host has this name."""
    known = [one.host for one in hosts]
    if not known:
        hint = "Give all hosts of the fleet the same dsn."
        raise Rejected(f"there is no host named {name}", NO_FLEET.removesuffix("."), hint)
    if name not in known:
        why = f"the ledger knows no host of this name{did_you_mean(name, known)}"
        raise Rejected(f"there is no host named {name}", why, "`uecwatchd fleet` lists them.")


def split_host(words: str, hosts: Iterable[HostSession]) -> tuple[str, str]:
    """Divide HOST:SET or HOST:FOLDER/SET. The host is empty if none of these is meant."""
    host, colon, rest = words.partition(":")
    return (host, rest) if colon and rest and host in [one.host for one in hosts] else ("", words)
