"""The way into a cloud: who we are there, which generation it is, what seals our bundles, the clients."""

from collections.abc import Mapping
from dataclasses import replace

from uecwatchd.cloud.certificate import fetch_certificate, is_of_another
from uecwatchd.cloud.client import Cloud, connect
from uecwatchd.cloud.credentials import Account, gather, numbered, sealing_certificate
from uecwatchd.cloud.dialect import DIALECTS, Dialect
from uecwatchd.cloud.recognise import Recognised, Remembered, address_of, recognise
from uecwatchd.errors import Halted
from uecwatchd.settings import CloudSettings
from uecwatchd.signals import NEVER, Stop


def entered(
    settings: CloudSettings, *, uploads: int, before: Mapping[str, Remembered], stop: Stop = NEVER
) -> Cloud:
    """A cloud, ready to be asked. Raises what `gather` raises, and what the cloud's answers mean.

    `before` is what was found earlier, by cloud: that is not asked for again at the same address.
    """
    account = gather(settings)
    known = before.get(settings.name)
    if settings.dialect in DIALECTS or known is None or known.address != address_of(account):
        return connected(account, recognised(settings, account, stop=stop), uploads=uploads, stop=stop)
    found = Recognised(DIALECTS[known.dialect], "it was so before")
    return connected(account, found, uploads=uploads, stop=stop)


def recognised(settings: CloudSettings, account: Account, *, stop: Stop = NEVER) -> Recognised:
    """What the configuration calls it; else what it turns out to be."""
    if named := DIALECTS.get(settings.dialect):
        return Recognised(named, "the configuration says so")
    return recognise(account, stop=stop)


def connected(account: Account, found: Recognised, *, uploads: int, stop: Stop = NEVER) -> Cloud:
    account = _sealing(numbered(account, found.dialect), found.dialect, stop)
    return connect(account, found.dialect, uploads=uploads, stop=stop)


def _sealing(account: Account, dialect: Dialect, stop: Stop) -> Account:
    """See that bundles are sealed for this cloud, by its own word where it gives that. Raises Halted."""
    if account.cloud_cert is None and dialect.offers_certificate:
        return replace(account, cloud_cert=fetch_certificate(account, stop=stop))
    if dialect.offers_certificate and is_of_another(account, stop=stop):
        raise Halted(
            f"cloud {account.cloud}: the cloud certificate is another cloud's",
            "what is sealed for it, this cloud could not open",
            "Correct cloud_cert, or take it out of configuration and eucarc: this cloud gives its own.",
        )
    sealing_certificate(account)  # without it, every set would fail of it
    return account
