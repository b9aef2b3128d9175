"""Do the modules of a system, and those in a ramdisk, fit the kernel that is to be booted?

A kernel loads only modules of its own version. Without them it lacks drivers: from the ramdisk that of the
root, from the system mostly that of the network.
"""

from collections.abc import Collection, Iterator

from uecwatchd.images.guest.summary import ReadinessFinding
from uecwatchd.system.text import shorten

MAX_LISTED = 3


def judge_modules(
    kernel: str, *, in_system: Collection[str], in_ramdisk: Collection[str], is_modular: bool
) -> Iterator[ReadinessFinding]:
    """Yield what does not fit a kernel. All versions are as `uname -r` prints them.

    A system without modules is right for a kernel that needs none, and wrong for one that `is_modular`. No
    version in the ramdisk means that none is known.
    """
    kernel = shorten(kernel)
    boots = f"Kernel {kernel} is to be booted"
    if kernel not in in_system and (in_system or is_modular):
        there = f"the modules in /lib/modules are for {_listed(in_system)}"
        what = there if in_system else "/lib/modules has none for it"
        sentence = f"{boots}, and {what}: drivers that are modules do not load."
        remedy = "Install the modules of that kernel in the image, or boot a kernel that has them there."
        yield ReadinessFinding("modules", "warning", sentence, remedy)
    if in_ramdisk and kernel not in in_ramdisk:
        there = f"the modules in its ramdisk are for {_listed(in_ramdisk)}"
        sentence = f"{boots}, and {there}: it may not find its root."
        remedy = f"Take the ramdisk of that kernel. In the guest: update-initramfs -c -k {kernel}"
        yield ReadinessFinding("modules", "warning", sentence, remedy)


def _listed(versions: Collection[str]) -> str:
    first = [shorten(version) for version in sorted(versions)[:MAX_LISTED]]
    more = len(versions) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
