"""Installation of a system into a new disk, under QEMU, from an ISO image or on top of another image."""
