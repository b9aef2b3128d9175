"""Builds in tests: a folder of builds, requests for files made here, and a worker in this process."""

import itertools
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from uecwatchd.install.recipe import InstallRecipe, read_recipe
from uecwatchd.install.request import BuildRequest, BuildStatus, RecipeFile, read_status, write_request
from uecwatchd.install.worker import WorkerTools, run_worker
from uecwatchd.types import FileStamp

NUMBERS = itertools.count(1)
TABLE: Mapping[str, object] = {"iso": "tiny.iso", "disk": "4M", "memory": "32M", "time_limit": "60s"}


class Builds:
    """A folder of builds. `told` are the sentences of its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "builds"
        self.folder.mkdir()
        self.files = folder
        self.stop = threading.Event()
        self.told: list[str] = []

    def ask(self, *, name: str = "karmic", **table: object) -> str:
        """Ask for a build with files in our folder, and return its key."""
        recipe = read_recipe({**TABLE, **table} if "base" not in table else table)
        return self.ask_for(recipe, name=name)

    def ask_for(self, recipe: InstallRecipe, *, name: str = "karmic") -> str:
        key = f"{next(NUMBERS):032x}"
        paths = {one: self.files / file for one, file in recipe.files.items()}
        files = {one: RecipeFile(path, FileStamp.of(path.stat())) for one, path in paths.items()}
        write_request(self.folder, BuildRequest(key, name, recipe, files, "tcg"))
        return key

    def work(self, *, at_once: int = 2, program: str = "qemu-system-x86_64") -> bool:
        """Run a worker until there is nothing to do."""
        tools = WorkerTools(self.stop.is_set, self.stop.wait, self.told.append, time.time)
        return run_worker(self.folder, tools, at_once=at_once, program=program)

    def build(self, **table: object) -> BuildStatus:
        """Build at once, and return the last status."""
        key = self.ask(**table)
        assert self.work()
        return self.status(key)

    def status(self, key: str) -> BuildStatus:
        status = read_status(self.folder, key)
        assert status is not None
        return status

    def console(self, key: str) -> str:
        path = self.folder / key / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""
