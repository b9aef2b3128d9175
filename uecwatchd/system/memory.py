"""Memory of this process: returned to the system early, and never dumped to a disk."""

import ctypes
import resource
from contextlib import suppress
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

M_ARENA_MAX = -8  # malloc.h of glibc


def use_one_heap() -> None:
    """Make all threads use one heap.

    By default glibc gives each thread its own heap, up to eight for each processor, and memory that was freed
    in one heap is not available to another. Blocks of images are allocated in one thread and freed in
    another, so each heap would grow to the size that all of them need. Other C libraries have one heap.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def disable_core_dumps() -> None:
    """Disable core dumps of this process, because it holds keys. A unit can forbid them too."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allocate_pages(size: int) -> memoryview:
    """Return `size` bytes of memory in separate pages, which go back to the system as soon as they are freed.

    Memory that Python allocates itself would mostly stay with the process.
    """
    return memoryview(mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS))
