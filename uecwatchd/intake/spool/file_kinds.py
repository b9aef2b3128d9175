"""What a name in a spool folder says that a file is for. Upper and lower case make no difference."""

from uecwatchd.images import file_names

SIDECAR_SUFFIXES = (".toml", ".json")
CHECKSUM_SUFFIXES = (".sha256", ".sha256sum", ".sha256sums")  # by which a list may bear the stem of its set


def is_sidecar(path: str) -> bool:
    return file_names.folded(path).endswith(SIDECAR_SUFFIXES)


def is_sums(path: str) -> bool:
    return file_names.sums_target(path.rsplit("/", 1)[-1]) is not None
