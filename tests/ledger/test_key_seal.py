"""The seal of keys in a database: it opens what it has sealed, for the same bundle alone."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.errors import Halted
from uecwatchd.ledger.key_seal import FILE_NAME, KeySeal, find_seal, seal_of

SEAL, OTHER = KeySeal(b"s" * 32), KeySeal(b"o" * 32)


@given(key=st.binary(max_size=32), of=st.binary(max_size=32), other=st.binary(max_size=32))
def test_a_key_is_opened_for_its_bundle_alone(key: bytes, of: bytes, other: bytes) -> None:
    sealed = SEAL.seal(key, of=of)
    assert SEAL.open(sealed, of=of) == key
    assert OTHER.open(sealed, of=of) is None
    assert SEAL.open(sealed, of=other) == (key if other == of else None)


@given(sealed=st.binary(max_size=60))
def test_what_was_not_sealed_is_no_key(sealed: bytes) -> None:
    assert SEAL.open(sealed, of=b"") is None


def test_a_sealed_key_does_not_contain_the_key_and_differs_each_time() -> None:
    key = os.urandom(16)
    first, second = (SEAL.seal(key, of=b"a") for _ in range(2))
    assert key not in first + second
    assert first != second


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    assert find_seal(tmp_path) is None
    with ThreadPoolExecutor(8) as pool:
        seals = list(pool.map(lambda _: seal_of(tmp_path), range(8)))
    sealed = seals[0].seal(b"key", of=b"")
    assert {seal.open(sealed, of=b"") for seal in (*seals, seal_of(tmp_path))} == {b"key"}
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    found = find_seal(tmp_path)
    assert found is not None
    assert found.open(sealed, of=b"") == b"key"


def test_a_damaged_secret_is_said_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"short")
    with pytest.raises(Halted, match="it has 5 bytes instead of 32") as raised:
        seal_of(tmp_path)
    assert raised.value.hint.startswith("Delete it")
    assert find_seal(tmp_path) is None
