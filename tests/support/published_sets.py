"""Sets with several published images, and what is known of them."""

import json
import random
import struct
from contextlib import closing
from typing import Any

from tests.support.host import Host
from tests.support.spool_files import KEEP, drop_image
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.sandbox.state.registry import Tag
from uecwatchd.types import SetId

BUCKET = "uec-images"


def drop(host: Host, name: str = "karmic", *, seed: int = 1, sidecar: str = KEEP) -> None:
    noise = random.Random(seed).randbytes(4096)  # noqa: S311 (only to be another image)
    data = boot_sector() + noise if "hvm" in sidecar else noise
    drop_image(host.spool, name, data, sidecar=sidecar)


def boot_sector() -> bytes:
    """The first sector of a whole disk, with one Linux partition in the sectors after it."""
    entry = struct.pack("<B3sB3sII", 0x80, b"\0" * 3, 0x83, b"\0" * 3, 1, 8)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def publish(host: Host, name: str = "karmic", *, seed: int = 1, sidecar: str = KEEP) -> str:
    """Drop an image, have it registered, and return its id."""
    drop(host, name, seed=seed, sidecar=sidecar)
    host.ask("once")
    return (host.spool / f"{name}.emi").read_text().strip()


def publish_several(host: Host, number: int, name: str = "karmic", **how: Any) -> list[str]:
    """Publish so many images one after the other, and return their ids, the oldest first."""
    return [publish(host, name, seed=seed, **how) for seed in range(number)]


def images(host: Host) -> list[str]:
    return sorted(image.id for image in host.cloud.images)


def keys(host: Host, bucket: str = BUCKET) -> list[str]:
    return [one.key for one in host.cloud.objects(bucket)]


def versions(host: Host, name: str = "karmic") -> tuple[VersionRecord, ...]:
    with closing(open_ledger(host.state)) as book:
        return book.versions.of_set(SetId(str(host.spool), name))


def states(host: Host, name: str = "karmic") -> dict[str, str]:
    return {one.image_id: one.state for one in versions(host, name)}


def row(host: Host, name: str = "karmic") -> dict[str, Any]:
    (found,) = json.loads(host.ask("status", name, "--json")[0])
    return dict(found)


def tag(host: Host, image_id: str, key: str, value: str) -> None:
    """Write a tag as a stranger with the account's keys would."""
    host.cloud.backend.registry.add_tags([Tag(image_id, key, value)], limit=50)


def tags(host: Host, image_id: str) -> dict[str, str]:
    found = (one for one in host.cloud.backend.registry.tags() if one.resource == image_id)
    return {one.key: one.value for one in found}


def lose_ledger(host: Host) -> None:
    for path in host.state.glob("ledger.sqlite*"):
        path.unlink()


def retain(host: Host, rule: str) -> None:
    """Add [retention] to the configuration."""
    host.configure(f"{host.config.read_text()}\n[retention]\n{rule}\n")
