"""Compressed disk images, unpacked while they are read: no copy, no process, bounded memory and output."""
