"""Looks at everything the service needs, changes nothing, and says what to do about what is wrong."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography.x509 import Certificate

from uecwatchd import ledger
from uecwatchd.cloud.client import connect
from uecwatchd.cloud.credentials import gather
from uecwatchd.cloud.dialect import DIALECTS
from uecwatchd.cloud.register import probe
from uecwatchd.cloud.upload import check_bucket_name
from uecwatchd.errors import Halted, UecError
from uecwatchd.rounds import rules_of
from uecwatchd.settings import CloudSettings, Settings
from uecwatchd.spool import folder_descriptor
from uecwatchd.watch import MOUNTINFO, file_system_type

Level = Literal["ok", "warning", "bad"]

# The ledger and a few logs; images are never copied to this disk.
LEAST_STATE_BYTES = 16 * 1024 * 1024
# Long enough to have a certificate renewed by people.
EXPIRY_WARNING = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer. `exit_code` is what the command ends with if this is the worst of it."""

    level: Level
    what: str
    hint: str = ""
    exit_code: int = 0


def examine(settings: Settings, *, now: datetime) -> Iterator[Finding]:
    yield Finding("ok", f"configuration: {settings.source or 'built-in defaults, there is no file'}")
    try:
        bucket = rules_of(settings).defaults.bucket
        check_bucket_name(bucket, from_config=True)
    except UecError as error:
        yield _bad(error)
    for folder in settings.spool.folders:
        yield from _folder(folder)
    yield from _state(settings.state.dir)
    if not settings.clouds:
        hint = "Add [cloud.default] to the configuration; see its example."
        yield Finding("bad", "no cloud is configured", hint, Halted.exit_code)
    for cloud in settings.clouds.values():
        yield from _cloud(cloud, now)


def exit_code(findings: list[Finding]) -> int:
    """The worst finding's: what is ours to mend counts more than a cloud that is away."""
    return max((f.exit_code for f in findings if f.level == "bad"), default=0)


def _bad(error: UecError) -> Finding:
    return Finding("bad", f"{error.what}: {error.why}", error.hint, error.exit_code)


def _folder(folder: Path) -> Iterator[Finding]:
    try:
        with folder_descriptor(folder):
            pass
    except UecError as error:
        yield _bad(error)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        hint = f"Try: chgrp uecdrop {folder} && chmod 3770 {folder}, and run this as the service's user."
        yield Finding("bad", f"{folder}: this user may not write results there", hint, 77)
        return
    kind = file_system_type(folder, MOUNTINFO.read_text(errors="surrogateescape"))
    yield Finding("ok", f"spool folder: {folder} ({kind})")


def _state(folder: Path) -> Iterator[Finding]:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        hint = f"Run as the service's user, or: install -d -o uecwatchd -m 0700 {folder}."
        yield Finding("bad", f"{folder}: this user may not write the state directory", hint, 77)
        return
    free = shutil.disk_usage(there).free
    if free < LEAST_STATE_BYTES:
        yield Finding("bad", f"{folder}: only {free} bytes are free there", "Free some space.", 75)
        return
    try:
        book = ledger.read_ledger(folder)
    except UecError as error:
        yield _bad(error)
        return
    told = f"a ledger of {len(book.sets())} sets" if book else "no ledger yet"
    if book:
        book.close()
    yield Finding("ok", f"state directory: {folder} ({told})")


def _cloud(settings: CloudSettings, now: datetime) -> Iterator[Finding]:
    try:
        account = gather(settings)
        yield Finding("ok", f"cloud {settings.name}: credentials of account {account.account} are complete")
        yield from _expiry(settings.name, "the user's certificate", account.user_cert, now)
        yield from _expiry(settings.name, "the cloud's certificate", account.cloud_cert, now)
        probe(connect(account, DIALECTS[settings.dialect], uploads=1))
    except UecError as error:
        told = _bad(error)
        # The error names the file or the call; with several clouds one also has to know whose.
        what = told.what if f"cloud {settings.name}" in told.what else f"cloud {settings.name}: {told.what}"
        yield replace(told, what=what)
        return
    yield Finding(
        "ok", f"cloud {settings.name}: {account.ec2_url} and {account.s3_url} answer as they should"
    )


def _expiry(cloud: str, whose: str, certificate: Certificate, now: datetime) -> Iterator[Finding]:
    """A warning only: no server of this kind looks at the date."""
    end = certificate.not_valid_after_utc
    if end < now + EXPIRY_WARNING:
        verb = "expired" if end < now else "expires"
        yield Finding("warning", f"cloud {cloud}: {whose} {verb} on {end:%Y-%m-%d}", "Have it renewed.")
