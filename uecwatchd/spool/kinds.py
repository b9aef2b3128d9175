"""What a name in a spool folder says that a file is for. Upper and lower case make no difference."""

from uecwatchd import image

SIDECAR_SUFFIXES = (".toml", ".json")
CHECKSUM_SUFFIX = ".sha256"


def is_sidecar(path: str) -> bool:
    return image.folded(path).endswith(SIDECAR_SUFFIXES)


def is_sums(path: str) -> bool:
    return image.folded(path).endswith(CHECKSUM_SUFFIX)
