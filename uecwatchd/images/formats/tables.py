"""Numbers of tables: arrays of one width and byte order."""

import sys
from array import array
from typing import Literal

Width = Literal["I", "Q"]  # 4 and 8 bytes, on all systems that Linux runs on


def big_endian(width: Width, data: bytes) -> "array[int]":
    return _numbers(width, data, order="big")


def little_endian(width: Width, data: bytes) -> "array[int]":
    return _numbers(width, data, order="little")


def _numbers(width: Width, data: bytes, *, order: Literal["big", "little"]) -> "array[int]":
    numbers = array(width, data)
    if sys.byteorder != order:
        numbers.byteswap()
    return numbers
