"""Recorded consoles, for a cloud that starts no machines: the way of a guest to its login, or elsewhere.

A console is empty when it is read for the first time, then the first half of it comes, then all.
"""

from uecwatchd.sandbox.state.instances import Instance

KERNEL = """\
[    0.000000] Linux version 6.1.0-recorded (this is a recorded console: the test cloud starts no machine)
[    0.000000] Command line: root=/dev/sda1 ro console=ttyS0
[    0.412071] virtio_blk virtio1: [vda] 98304 512-byte logical blocks
"""
USERSPACE = """\
[    1.820133] EXT4-fs (vda): mounted filesystem with ordered data mode
Begin: Running /scripts/init-bottom ... done.
 * Starting OpenBSD Secure Shell server sshd
"""
LOGIN = "\nrecorded login: "
PANIC = """\
[    1.044002] VFS: Cannot open root device "sda1" or unknown-block(0,0): error -6
[    1.044010] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
[    1.044021] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.1.0-recorded
[    1.044050] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---
"""
# Reads after which a console has begun, and has come to its end.
BEGUN_READS, WHOLE_READS = 1, 2
LATER_STAGES = {"boots": USERSPACE + LOGIN, "panics": PANIC}


def recorded_console(instance: Instance) -> str:
    """Return the console of an instance as it is now."""
    if instance.script in ("silent", "pending") or instance.reads < BEGUN_READS:
        return ""
    begun = instance.console + KERNEL
    if instance.reads < WHOLE_READS:
        return begun
    return begun + LATER_STAGES.get(instance.script, USERSPACE)
