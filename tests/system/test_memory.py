"""The heap is one process's, so each case has a process of its own."""

import platform
import subprocess
import sys

import pytest

ALLOCATING = """
import ctypes, sys, threading
from uecwatchd.system import memory

if sys.argv[1] == "together":
    memory.use_one_heap()
libc = ctypes.CDLL(None)
libc.fdopen.restype = libc.malloc.restype = ctypes.c_void_p
threads = [threading.Thread(target=libc.malloc, args=(100_000,)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


def heaps(how: str) -> int:
    command = [sys.executable, "-c", ALLOCATING, how]
    return subprocess.run(command, capture_output=True, check=True).stdout.count(b"<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such heaps")
def test_all_threads_have_one_heap() -> None:
    assert heaps("apart") > 1
    assert heaps("together") == 1
