"""Sets that the last scan of each spool folder has found."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from uecwatchd.intake.sets.records import FolderSets, ImageSet, defer_open_files
from uecwatchd.service.policy import set_names
from uecwatchd.types import SetId


class FoundSets:
    """Result of the last scan of each folder. Belongs to the service's loop."""

    def __init__(self) -> None:
        self._assemblies: dict[Path, FolderSets] = {}

    def put(self, folder: Path, assembly: FolderSets) -> None:
        self._assemblies[folder] = assembly

    def drop(self, folder: Path) -> None:
        """Forget the sets of a folder that cannot be scanned: they would only cause more scans."""
        self._assemblies.pop(folder, None)

    def defer_open_files(self, folder: Path, written: Mapping[str, str], *, ready_at: float) -> None:
        """Let sets wait that have a file open for writing: `written` is its path, by the set's name."""
        self._assemblies[folder] = defer_open_files(self._assemblies[folder], written, ready_at=ready_at)

    def ids(self) -> list[SetId]:
        """Return the ids of all sets, in order."""
        named = ((folder, name) for folder, found in self._assemblies.items() for name in set_names(found))
        return sorted(SetId(str(folder), name) for folder, name in named)

    def ready(self) -> Iterator[ImageSet]:
        """Yield the complete sets."""
        return (found for assembly in self._assemblies.values() for found in assembly.ready)

    def settle_times(self) -> list[float]:
        """Return the monotonic times when files will have been unchanged for long enough."""
        waiting = (wait for assembly in self._assemblies.values() for wait in assembly.waiting)
        return [wait.ready_at for wait in waiting if wait.ready_at is not None]
