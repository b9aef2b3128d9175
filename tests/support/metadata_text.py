"""The text of a sidecar or checksum file, read as a scan reads it from the file."""

from collections.abc import Mapping

from uecwatchd.config.documents import Malformed
from uecwatchd.intake.checksums import parse_checksums, unusable_checksums
from uecwatchd.intake.sidecar import Sidecar, parse_sidecar, unusable_sidecar


def read_sidecar(file_name: str, data: bytes) -> Sidecar:
    """Read `NAME.toml` or `NAME.json`. Raises Rejected for any bad content."""
    try:
        return parse_sidecar(data, is_json=file_name.lower().endswith(".json"))
    except Malformed as error:
        raise unusable_sidecar(file_name, error) from error


def read_checksums(file_name: str, data: bytes) -> Mapping[str, str]:
    """Read a checksum file; returns name → digest. Raises Rejected for any bad content."""
    try:
        return parse_checksums(file_name, data)
    except Malformed as error:
        raise unusable_checksums(file_name, error) from error
