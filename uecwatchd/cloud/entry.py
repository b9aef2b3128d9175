"""The way into a cloud: who we are there, which generation it is, what seals our bundles, the clients."""

from collections.abc import Mapping
from dataclasses import replace

from uecwatchd.cloud.certificate import fetch_certificate
from uecwatchd.cloud.client import Cloud, connect
from uecwatchd.cloud.credentials import Account, gather, sealing_certificate
from uecwatchd.cloud.dialect import DIALECTS, Dialect
from uecwatchd.cloud.recognise import Recognised, recognise
from uecwatchd.settings import CloudSettings


def entered(settings: CloudSettings, *, uploads: int, before: Mapping[str, str]) -> Cloud:
    """A cloud, ready to be asked. Raises what `gather` raises, and what the cloud's answers mean.

    `before` are the dialects' names that were found earlier, by cloud: those are not asked for again.
    """
    account = gather(settings)
    known = DIALECTS.get(before.get(settings.name, ""))
    found = Recognised(known, "it was so before") if known else recognised(settings, account)
    return connected(account, found, uploads=uploads)


def recognised(settings: CloudSettings, account: Account) -> Recognised:
    """What the configuration calls it; else what it turns out to be."""
    if named := DIALECTS.get(settings.dialect):
        return Recognised(named, "the configuration says so")
    return recognise(account)


def connected(account: Account, found: Recognised, *, uploads: int) -> Cloud:
    return connect(_sealing(account, found.dialect), found.dialect, uploads=uploads)


def _sealing(account: Account, dialect: Dialect) -> Account:
    """Fetch the certificate that bundles are sealed for, if none was given. Raises Halted."""
    if account.cloud_cert is None and dialect.offers_certificate:
        account = replace(account, cloud_cert=fetch_certificate(account))
    sealing_certificate(account)  # without it, every set would fail of it
    return account
