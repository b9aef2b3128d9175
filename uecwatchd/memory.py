"""How the C library keeps the memory of this process."""

import ctypes
from contextlib import suppress

M_ARENA_MAX = -8  # malloc.h of glibc


def keep_together() -> None:
    """Have one heap for all threads.

    By default each thread gets its own, up to eight for each processor, and what one has let go no other can
    have: blocks of images are made in one thread and let go in another, so that each heap would come to hold
    as much as all of them need. Where the C library knows no such wish, it has one heap anyway.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
