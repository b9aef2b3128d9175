"""A kernel beside an image, or one that is registered: it is booted instead of the image's own."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from uecwatchd.images.file_facts import Facts
from uecwatchd.images.guest.inspection import Inspection
from uecwatchd.images.guest.kernel_pair import can_start
from uecwatchd.images.guest.module_versions import judge_modules
from uecwatchd.images.guest.summary import ImageSummary, ReadinessFinding, in_order

ABOUT_OWN_KERNEL = ("kernel", "virtio", "hotplug", "modules")


@dataclass(frozen=True, slots=True)
class KernelBeside:
    """A kernel with its name for messages, and the versions of kernels with modules in its ramdisk."""

    name: str
    facts: Facts
    in_ramdisk: Collection[str] = ()


def summarise_for(inspection: Inspection, kernel: KernelBeside | None) -> ImageSummary:
    """Return the summary of a Linux that is booted by this kernel. None is one of unknown content."""
    summary = inspection.summary()
    others = (finding for finding in summary.findings if finding.key not in ABOUT_OWN_KERNEL)
    found = _judge(inspection, kernel) if kernel else ()
    return replace(summary, findings=in_order((*others, *found)))


def _judge(inspection: Inspection, kernel: KernelBeside) -> Iterator[ReadinessFinding]:
    programs, facts = inspection.system.arch if inspection.system else None, kernel.facts
    if not can_start(facts.arch, programs):
        sentence = f"{kernel.name} is for {facts.arch}, and the programs in the image are for {programs}."
        remedy = f"Drop a kernel for {programs}, with its ramdisk."
        yield ReadinessFinding("kernel", "error", sentence, remedy)
    elif facts.version is not None:
        versions = inspection.module_versions
        yield from judge_modules(
            facts.version, in_system=versions, in_ramdisk=kernel.in_ramdisk, is_modular=False
        )
