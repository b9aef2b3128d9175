"""The boot floppy of Windows, for clouds with memdisk as the kernel and the floppy as the ramdisk.

- `boot_files`: which files of a dropped folder go on it, under which names;
- `boot_ini`: the list of systems that NTLDR reads;
- `syslinux`: memdisk and the modules of syslinux on this host;
- `make`: the floppy itself.
"""
