"""The verb `inspect`: what is inside an image, and if it is ready for a cloud."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

from uecwatchd.cli.image_of_set import OpenedImage, find_image_of_set, open_image_of_set
from uecwatchd.cli.output import put, put_json
from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import read_exactly
from uecwatchd.images.detect import HEAD_BYTES, detect
from uecwatchd.images.formats.open import OpenedDisk, open_disk
from uecwatchd.images.guest.disk import describe_place
from uecwatchd.images.guest.inspection import Inspection, inspect_image
from uecwatchd.images.guest.kernel_beside import ABOUT_OWN_KERNEL
from uecwatchd.images.guest.summary import in_order
from uecwatchd.images.suitability import reason_unsuitable
from uecwatchd.system.file_errors import NoInput, open_for_reading
from uecwatchd.system.signals import stop_on_signals

LAYOUTS = {
    "disk": "whole disk",
    "partition": "one file system",
    "floppy": "floppy",
    "iso": "CD image",
    "unknown": "unknown",
}


def inspect(arguments: argparse.Namespace) -> int:
    stop = stop_on_signals(code=os.EX_TEMPFAIL)
    with _open(arguments, stop.may_go_on) as image:
        found = inspect_image(image.disk.source, name=image.name, check=stop.may_go_on)
    found = _with_kernel_of_set(image, replace(found, remarks=(*found.remarks, *image.remarks)))
    if arguments.json:
        put_json(_as_json(image, found))
    else:
        for line in _lines(image, found):
            put(line)
    return os.EX_OK if found.is_ready else os.EX_DATAERR


def _with_kernel_of_set(image: OpenedImage, found: Inspection) -> Inspection:
    """Replace what was found about the image's own kernel if its set boots another one."""
    if image.about_kernel is None:
        return found
    others = (finding for finding in found.findings if finding.key not in ABOUT_OWN_KERNEL)
    return replace(found, findings=in_order((*others, *image.about_kernel)))


@contextmanager
def _open(arguments: argparse.Namespace, check: Callable[[], None]) -> Iterator[OpenedImage]:
    """Open the file with this name; if there is none, the image of the set."""
    path, name = Path(arguments.image), arguments.image
    image = None if path.exists() else find_image_of_set(name, arguments.config)
    if image is None and "/" not in name and not path.exists():
        raise NoInput(name, "there is no such file here, and no such set", "See the sets: uecwatchd status")
    if image is None:
        with open_for_reading(path) as file:
            yield OpenedImage(path.name, _open_image(file, path, check))
    else:
        with open_image_of_set(image, check) as opened:
            yield opened


def _open_image(file: FileIO, path: Path, check: Callable[[], None]) -> OpenedDisk:
    """Open the disk in a file. Raises Rejected if there is none."""
    disk = open_disk(file, name=path.name, check=check)
    source = disk.source
    facts = detect(read_exactly(source, 0, HEAD_BYTES), b"", size=source.size)
    is_disk = facts.layout or facts.format in ("iso9660", "unknown", "zeros", "swap", "fat")
    reason = None if is_disk else reason_unsuitable("machine", facts, size=source.size, name=str(path))
    if reason:
        raise Rejected(f"{path.name}: it cannot be inspected", *reason)
    return disk


def _lines(image: OpenedImage, found: Inspection) -> Iterator[str]:
    yield f"{'format':<12} {image.disk.format}"
    yield from (f"{'prepared':<12} {change}" for change in image.prepared or ())
    yield from (f"{label:<12} {value}" for label, value in _labelled(found))
    for finding in found.findings:
        yield f"{finding.severity:<12} {finding.sentence}"
        yield f"{'':12} {finding.remedy}"
    if not found.findings:
        yield f"{'ready':<12} Nothing was found that a cloud would stumble over."


def _labelled(found: Inspection) -> Iterator[tuple[str, str]]:
    table = found.disk.table
    scheme = f", {table.scheme.upper()}" if table else ""
    yield "layout", f"{LAYOUTS[found.disk.layout]}{scheme}"
    for placed in found.disk.volumes:
        yield "", describe_place(placed)
    if found.system:
        yield "system", found.system.name
        yield "architecture", found.summary().arch or "unknown"
    yield "boots by", " and ".join(way.upper() for way in found.boot_ways) or "a separate kernel only"
    for kernel in found.kernels:
        yield "kernel", f"{kernel.version}, {kernel.file.path}{_ramdisk_words(found, kernel.file.path)}"
    for remark in found.remarks:
        yield "remark", remark


def _ramdisk_words(found: Inspection, path: str) -> str:
    """Return what distinguishes the kernel that would be used."""
    if found.pair is None or found.pair.kernel.path != path:
        return ""
    return f", with {found.pair.ramdisk.path}" if found.pair.ramdisk else ", without a ramdisk"


def _as_json(image: OpenedImage, found: Inspection) -> dict[str, Any]:
    system, pair = found.system, found.pair
    return {
        "format": image.disk.format,
        "prepared": None if image.prepared is None else list(image.prepared),
        "layout": found.disk.layout,
        "partition_table": found.disk.table.scheme if found.disk.table else None,
        "volumes": [
            {
                "partition": placed.partition.number if placed.partition else None,
                "logical_volume": placed.volume.name or None,
                "type": placed.volume.type,
                "size": placed.volume.size,
                "uuid": placed.volume.uuid or None,
                "label": placed.volume.label or None,
                "problem": placed.volume.problem or None,
            }
            for placed in found.disk.volumes
        ],
        "system": {"id": system.id, "version": system.version, "name": system.name} if system else None,
        "arch": found.summary().arch,
        "boots_by": list(found.boot_ways),
        "kernels": [{"version": kernel.version, "path": kernel.file.path} for kernel in found.kernels],
        "kernel": pair.kernel.path if pair else None,
        "ramdisk": pair.ramdisk.path if pair and pair.ramdisk else None,
        "ready": found.is_ready,
        "findings": [
            {
                "key": finding.key,
                "severity": finding.severity,
                "sentence": finding.sentence,
                "remedy": finding.remedy,
            }
            for finding in found.findings
        ],
        "remarks": list(found.remarks),
    }
