"""Test boots on the embedded cloud: a configuration in which they are quick, and what is left of them."""

import json

from tests.support.host import Host
from tests.support.spool_files import drop_image
from uecwatchd.clouds.credentials.account import Account, gather
from uecwatchd.config.load import load
from uecwatchd.sandbox.server import Sandbox

TESTED = 'kernel = "none"\nconvert = "keep"\ntest = true\n'


def quick_boots(host: Host, *, seconds: float = 3.0, **settings: object) -> None:
    """Let test boots end after so many seconds, and look at them often."""
    lines = [f"boot_seconds = {seconds}", "boot_every = 0.1"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    text = host.config.read_text().replace("settle = 0.3", "settle = 0.05")
    host.configure("\n".join([text.rstrip(), *lines, ""]))


def drop_tested(host: Host, name: str = "karmic", *, more: str = "", data: bytes = b"1" * 4096) -> None:
    drop_image(host.spool, name, data, sidecar=TESTED + more)


def account(host: Host, name: str = "default") -> Account:
    return gather(load(host.config, environ={}).clouds[name])


def living(cloud: Sandbox) -> list[str]:
    """Return the instances that have not ended."""
    return [instance.id for instance in cloud.instances if instance.state != "terminated"]
