"""(b) Beside what the machine can do at all."""

import hashlib
import statistics
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from tests.bench.runs import GIB, MB, ROUNDS, SECRET, nowhere, processor, timed
from uecwatchd.bundle.compress import BLOCK_BYTES
from uecwatchd.bundle.deflate import HEADER, choose_deflater, gzip_trailer
from uecwatchd.bundle.unbundle import inflate


def primitives(path: Path, cores: int) -> Iterator[str]:
    """Each kind of work alone, in one thread, on the same bytes: what they take together is the roof."""
    yield ""
    yield "## What the machine can do at all (dense image)"
    yield ""
    yield "| work | MB/s | seconds for each GB of the image |"
    yield "|---|---|---|"
    with path.open("rb", buffering=0) as source:
        blocks = [bytearray(BLOCK_BYTES) for _ in range(256)]
        reading = processor(lambda: [source.readinto(block) for block in blocks])
    whole = len(blocks) * BLOCK_BYTES
    library = choose_deflater("fast")
    packed = [library.block(memoryview(block)) for block in blocks]
    left = sum(map(len, packed)) / whole
    costs = {
        "read": reading,
        "SHA-256 of the image": processor(lambda: hashed("sha256", blocks)),
        "SHA-1 of the archive": processor(lambda: hashed("sha1", blocks)),
        "deflate": processor(lambda: [library.block(memoryview(block)) for block in blocks]),
        "AES-128-CBC": processor(lambda: encrypted(packed)),
        "SHA-1 of the parts": processor(lambda: hashed("sha1", packed)),
    }
    for work, seconds in costs.items():
        share = left if work in ("AES-128-CBC", "SHA-1 of the parts") else 1
        yield f"| {work} | {whole * share / seconds / MB:.0f} | {seconds / whole * 10**9:.2f} |"
    roof = cores * whole / sum(costs.values())
    ours = statistics.median(GIB / timed(path, nowhere).seconds for _ in range(ROUNDS))
    yield ""
    yield (
        f"All of it on {cores} processors, none ever idle: {roof / MB:.0f} MB/s. "
        f"Ours, into nothing: {ours / MB:.0f} MB/s, {ours / roof:.0%} of that."
    )
    for threads in (1, 2, 4):
        run = timed(path, nowhere, threads)
        yield (
            f"Deflating in {threads} threads: {GIB / run.seconds / MB:.0f} MB/s, "
            f"{run.processor / run.seconds:.2f} processors busy."
        )
    yield f"Inflating: {whole / processor(lambda: unpacked(packed)) / MB:.0f} MB/s in one thread."


def hashed(name: str, blocks: list[bytearray] | list[bytes]) -> None:
    digest = hashlib.new(name)
    for block in blocks:
        digest.update(block)


def encrypted(blocks: list[bytes]) -> None:
    encryptor = Cipher(AES(SECRET.key), CBC(SECRET.iv)).encryptor()
    buffer = bytearray(2 * BLOCK_BYTES)
    for block in blocks:
        encryptor.update_into(block, buffer)


def unpacked(packed: list[bytes]) -> None:
    stream = inflate(iter([HEADER, *packed, gzip_trailer(0, 0)]))
    for _ in range(len(packed)):
        next(stream)
