"""A process that gives up its rights before it parses untrusted data with somebody else's library.

It keeps the descriptors that it has, and the memory and time that its parser needs. Afterwards it can open
nothing, so it has no files, no network and no devices; it can start nothing, write nothing, and leaves no
core dump. A mistake in the parser can then end the process or give a wrong answer, and not much more: neither
of these forbids a call that needs no descriptor, such as chmod(2) for a file of the same user.

- Limits on resources (getrlimit(2)) do this on every kernel: without free numbers for descriptors, each open
  and each socket fails. They count for root too, once it has become nobody.
- Landlock (landlock(7)) forbids the same by name, also to what might raise a limit again. Kernels before 5.13
  do not have it, and some are built or started without it.

Python cannot import anything afterwards, so the process has to import first what it needs.
"""

import ctypes
import errno
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

NOBODY = 65534
PR_SET_NO_NEW_PRIVS = 38
# The same numbers on all architectures but alpha.
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
# By version of Landlock's interface: rights for files, for TCP, and for signals and abstract sockets.
# <linux/landlock.h> of Linux 6.12; later versions add nothing that a process without descriptors could do.
FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
TCP_RIGHTS = {4: 0b11}
SCOPES = {6: 0b11}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the process may use from its start on."""

    cpu_seconds: int
    memory_bytes: int  #: of address space


class _Ruleset(ctypes.Structure):
    """The `landlock_ruleset_attr` of <linux/landlock.h>: what is forbidden, without exceptions."""

    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def confine(limits: Limits) -> str:
    """Give up the rights of this process for good. Returns a remark about what this kernel cannot do.

    Raises OSError if a limit cannot be set.
    """
    if os.geteuid() == 0:
        _become_nobody()
    for kind, value in _limits(limits):
        most = resource.getrlimit(kind)[1]
        lowest = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (lowest, lowest))
    _system_call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    remark = ""
    try:
        _forbid_everything()
    except OSError as error:
        remark = f"Landlock is not available here ({error.strerror}): only limits confine it"
    # The last one, because Landlock's rules are a descriptor. Those that are open remain.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    return remark


def _limits(limits: Limits) -> Iterator[tuple[int, int]]:
    yield resource.RLIMIT_CPU, limits.cpu_seconds
    yield resource.RLIMIT_AS, limits.memory_bytes
    yield resource.RLIMIT_CORE, 0
    yield resource.RLIMIT_FSIZE, 0
    yield resource.RLIMIT_NPROC, 0


def _become_nobody() -> None:
    with suppress(PermissionError):  # a container may let root do less
        os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _forbid_everything() -> None:
    version = _system_call("syscall", LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    sets = (FILE_RIGHTS, TCP_RIGHTS, SCOPES)
    rules = _Ruleset(*(sum(bits for since, bits in rights.items() if since <= version) for rights in sets))
    # An older kernel refuses a longer record only if it has something behind the end that it knows.
    size = ctypes.c_size_t(ctypes.sizeof(rules))
    descriptor = _system_call("syscall", LANDLOCK_CREATE_RULESET, ctypes.byref(rules), size, 0)
    try:
        _system_call("syscall", LANDLOCK_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)


def _system_call(function: str, number: int, *arguments: object) -> int:
    """Call `prctl` or `syscall` of the C library. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    values = (ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments)
    result: int = getattr(library, function)(ctypes.c_long(number), *values)
    if result < 0:
        code = ctypes.get_errno() or errno.ENOSYS
        raise OSError(code, os.strerror(code))
    return result
