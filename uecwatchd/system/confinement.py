"""Confinement: a process gives up its rights, before foreign code in it parses untrusted data.

It keeps the descriptors that it has, and the memory and time that its parser needs. Afterwards it can open
nothing but what it was given, so it has no other files, no network and no devices; it can start nothing,
write nothing, and leaves no core dump. A mistake in the parser can then end the process or give a wrong
answer, and not much more: neither of these forbids a call that needs no descriptor, such as chmod(2) for a
file of the same user.

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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

NOBODY = 65534
PR_SET_NO_NEW_PRIVS = 38
# The same numbers on all architectures but alpha.
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
# By version of Landlock's interface: rights for files, for TCP, and for signals and abstract sockets.
# <linux/landlock.h> of Linux 6.12; later versions add nothing that a process without descriptors could do.
FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
TCP_RIGHTS = {4: 0b11}
SCOPES = {6: 0b11}


@dataclass(frozen=True, slots=True)
class Limits:
    """Resources that the process may use from its start on."""

    cpu_seconds: int
    memory_bytes: int  #: of address space
    file_bytes: int = 0  #: length of any file that it writes
    descriptors: int = 0  #: numbers for descriptors, those in use included
    has_threads: bool = False  #: it may start threads, which count as processes


@dataclass(frozen=True, slots=True)
class AllowedFile:
    """An exception: a file or a folder by its descriptor, and rights of Landlock for it and all below it."""

    descriptor: int
    rights: int


class _Ruleset(ctypes.Structure):
    """The `landlock_ruleset_attr` of <linux/landlock.h>: what is forbidden, apart from exceptions."""

    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    """The `landlock_path_beneath_attr` of <linux/landlock.h>: an exception."""

    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def confine(limits: Limits, allowed: Sequence[AllowedFile] = ()) -> str:
    """Give up the rights of this process for good. Returns a remark about what this kernel cannot do.

    Exceptions are of use only if the limits leave descriptors. Raises OSError if a limit cannot be set.
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
        _forbid_everything(allowed)
    except OSError as error:
        remark = f"Landlock is not available here ({error.strerror}): only limits confine it"
    # The last one, because Landlock's rules are a descriptor. Those that are open remain.
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits.descriptors, limits.descriptors))
    return remark


def _limits(limits: Limits) -> Iterator[tuple[int, int]]:
    yield resource.RLIMIT_CPU, limits.cpu_seconds
    yield resource.RLIMIT_AS, limits.memory_bytes
    yield resource.RLIMIT_CORE, 0
    yield resource.RLIMIT_FSIZE, limits.file_bytes
    if not limits.has_threads:
        yield resource.RLIMIT_NPROC, 0


def _become_nobody() -> None:
    with suppress(PermissionError):  # a container may let root do less
        os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _forbid_everything(allowed: Sequence[AllowedFile]) -> None:
    version = _system_call("syscall", LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    sets = (FILE_RIGHTS, TCP_RIGHTS, SCOPES)
    rules = _Ruleset(*(sum(bits for since, bits in rights.items() if since <= version) for rights in sets))
    # An older kernel refuses a longer record only if it has something behind the end that it knows.
    size = ctypes.c_size_t(ctypes.sizeof(rules))
    descriptor = _system_call("syscall", LANDLOCK_CREATE_RULESET, ctypes.byref(rules), size, 0)
    try:
        for each in allowed:
            rule = ctypes.byref(_PathRule(each.rights, each.descriptor))
            _system_call("syscall", LANDLOCK_ADD_RULE, descriptor, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
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
