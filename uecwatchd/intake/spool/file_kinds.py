"""The kind of a file in a spool folder, from its name, without regard to case."""

from posixpath import basename

from uecwatchd.images import file_names

SIDECAR_SUFFIXES = (".toml", ".json")
CHECKSUM_SUFFIXES = (".sha256", ".sha256sum", ".sha256sums")  # a list may be the stem of its set with one


def is_sidecar(path: str) -> bool:
    return file_names.fold_name(path).endswith(SIDECAR_SUFFIXES)


def is_sums(path: str) -> bool:
    return file_names.checksums_target(basename(path)) is not None
