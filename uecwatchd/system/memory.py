"""What this process holds of the machine's memory, and no more."""

import ctypes
import resource
from contextlib import suppress
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

M_ARENA_MAX = -8  # malloc.h of glibc


def keep_together() -> None:
    """Have one heap for all threads.

    By default each thread gets its own, up to eight for each processor, and what one has let go no other can
    have: blocks of images are made in one thread and let go in another, so that each heap would come to hold
    as much as all of them need. Where the C library knows no such wish, it has one heap anyway.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def never_dumped() -> None:
    """Have no core of this process written: it holds keys. A unit that forbids this has seen to it itself."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def pages(size: int) -> memoryview:
    """So many bytes in pages of their own, which the system has back as soon as they are let go: of what
    Python gives out itself, much would stay."""
    return memoryview(mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS))
