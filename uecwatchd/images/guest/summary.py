"""Summary of an inspection, short enough to be stored with its set and shown beside its files."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from uecwatchd.system.known_fields import make_known
from uecwatchd.types import Arch

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class ReadinessFinding:
    """One thing that is wrong with a guest. `sentence` says what and why, `remedy` what to do."""

    key: str
    severity: Severity
    sentence: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """An image by its content. Empty texts are what is not known."""

    layout: str  #: "disk", "partition", "floppy", "iso" or "unknown"
    table: str = ""  #: "mbr" or "gpt"
    system: str = ""  #: its name for people, such as "Debian GNU/Linux 12 (bookworm)"
    system_id: str = ""  #: as in os-release(5), such as "debian", or "windows"
    version: str = ""
    arch: Arch | None = None
    boots_by: tuple[str, ...] = ()  #: "bios", "uefi"
    kernel: str = ""  #: version of the kernel that it would boot
    findings: tuple[ReadinessFinding, ...] = ()  #: errors first
    remarks: tuple[str, ...] = ()  #: about the image or this machine, without a remedy
    windows_partition: int | None = None  #: that Windows is on, as Boot.ini counts; None if that is not known
    windows_folder: str = ""  #: its system folder, such as "WINDOWS"

    @property
    def is_ready(self) -> bool:
        return is_ready(self.findings)

    def with_findings(self, key: str, findings: Iterable[ReadinessFinding]) -> Self:
        """Return the summary with these findings in place of its own with the same key."""
        others = (finding for finding in self.findings if finding.key != key)
        return replace(self, findings=in_order((*others, *findings)))

    def as_json(self) -> dict[str, object]:
        """Return what programs read: null for what is not known."""
        return {key: None if value == "" else value for key, value in asdict(self).items()} | {
            "ready": self.is_ready
        }


def in_order(findings: Iterable[ReadinessFinding]) -> tuple[ReadinessFinding, ...]:
    """Return findings with errors first, and otherwise in their order."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def is_ready(findings: Iterable[ReadinessFinding]) -> bool:
    return not any(finding.severity == "error" for finding in findings)


def write_summary(summary: ImageSummary) -> str:
    return json.dumps(asdict(summary))


def read_summary(text: str) -> ImageSummary:
    """Parse the output of `write_summary`. Raises ValueError, TypeError or KeyError for anything else."""
    values: dict[str, Any] = json.loads(text)
    values["findings"] = tuple(make_known(ReadinessFinding, finding) for finding in values["findings"])
    values["boots_by"], values["remarks"] = tuple(values["boots_by"]), tuple(values["remarks"])
    return make_known(ImageSummary, values)
