"""The files between the service and the worker: each is read as it was written, and nothing else is."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uecwatchd.config.documents import Malformed
from uecwatchd.errors import Deferred
from uecwatchd.install import request as files
from uecwatchd.install.recipe import MIB, InstallRecipe
from uecwatchd.install.request import (
    BuildFailure,
    BuildRequest,
    BuildStatus,
    RecipeFile,
    build_key,
    end_build,
    is_withdrawn,
    queued_builds,
    read_request,
    read_status,
    withdraw_request,
    write_request,
    write_status,
)
from uecwatchd.system import failpoints
from uecwatchd.types import ContentDigest, FileStamp

KEY = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32
RECIPE = InstallRecipe(iso="mini.iso", answers="answers", disk=64 * MIB)
FILES = {
    "iso": RecipeFile(Path("/srv/drop/mini.iso"), FileStamp(1, 2, 3, 4)),
    "answers": RecipeFile(Path("/srv/drop/answers"), FileStamp(1, 5, 6, 7)),
}
REQUEST = BuildRequest(KEY, "karmic", RECIPE, FILES, "tcg")
DIGESTS = {"iso": ContentDigest("a" * 64), "answers": ContentDigest("b" * 64)}
FAILURE = BuildFailure("rejected", "karmic", "its installer hangs", "Look at the screen.")


def test_a_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_request(tmp_path, REQUEST)
    assert read_request(tmp_path, KEY) == REQUEST
    assert queued_builds(tmp_path) == (KEY,)
    assert read_status(tmp_path, KEY) is None


def test_requests_are_queued_in_their_order(tmp_path: Path) -> None:
    write_request(tmp_path, replace(REQUEST, key=OTHER))
    write_request(tmp_path, REQUEST)
    os.utime(tmp_path / "queue" / OTHER, ns=(1, 1))
    assert queued_builds(tmp_path) == (OTHER, KEY)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    last_line=st.text(max_size=50).filter(lambda text: text.isprintable()),
    stage=st.sampled_from(["prepare", "install", "second boot"]),
    began=st.floats(0, 1e10),
    failure=st.sampled_from([None, FAILURE]),
)
def test_a_status_is_read_as_it_was_written(
    tmp_path: Path, last_line: str, stage: str, began: float, failure: BuildFailure | None
) -> None:
    status = BuildStatus(
        KEY, "running", began, stage=stage, last_line=last_line, failure=failure, console=("a", last_line)
    )
    (tmp_path / KEY).mkdir(exist_ok=True)
    write_status(tmp_path, status)
    assert read_status(tmp_path, KEY) == status


@pytest.mark.parametrize(
    "change", [{"state": "finished"}, {"disk": "../x"}, {"version": 2}, {"key": OTHER}, {"x": 1}]
)
def test_a_status_that_no_worker_writes_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / KEY).mkdir()
    write_status(tmp_path, BuildStatus(KEY, "done", 1.0))
    path = tmp_path / KEY / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Deferred, match="it cannot be used"):
        read_status(tmp_path, KEY)


def test_a_status_behind_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / KEY).mkdir()
    write_status(tmp_path, BuildStatus(KEY, "done", 1.0))
    (tmp_path / KEY / "status.json").rename(tmp_path / "elsewhere")
    (tmp_path / KEY / "status.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Deferred, match="installations need this folder"):
        read_status(tmp_path, KEY)


@pytest.mark.parametrize("change", [{"version": 0}, {"files": []}, {"recipe": {"iso": "a"}}, {"key": OTHER}])
def test_a_request_of_another_version_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write_request(tmp_path, REQUEST)
    path = tmp_path / KEY / "request.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Malformed):
        read_request(tmp_path, KEY)


def test_a_withdrawn_build_is_removed_by_the_worker(tmp_path: Path) -> None:
    write_request(tmp_path, REQUEST)
    end_build(tmp_path, KEY)
    assert queued_builds(tmp_path) == ()
    withdraw_request(tmp_path, KEY)
    assert queued_builds(tmp_path) == (KEY,)
    assert is_withdrawn(tmp_path, KEY)
    end_build(tmp_path, KEY)
    assert list(tmp_path.iterdir()) == [tmp_path / "queue"]
    assert queued_builds(tmp_path) == ()


def test_a_request_that_comes_while_its_build_is_removed_is_not_lost(tmp_path: Path) -> None:
    write_request(tmp_path, REQUEST)
    withdraw_request(tmp_path, KEY)
    failpoints.listen(lambda moment: "after remove" in moment and write_request(tmp_path, REQUEST))
    try:
        end_build(tmp_path, KEY)
    finally:
        failpoints.listen(lambda _moment: None)
    assert queued_builds(tmp_path) == (KEY,)
    assert read_request(tmp_path, KEY) == REQUEST
    assert not is_withdrawn(tmp_path, KEY)


def test_two_sets_that_ask_for_the_same_build_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(write_request, tmp_path, REQUEST) for _ in range(200)]
        assert [one.exception() for one in asked] == [None] * len(asked)
    assert read_request(tmp_path, KEY) == REQUEST
    assert [each.name for each in (tmp_path / KEY).iterdir()] == ["request.json"]


def test_withdrawing_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    withdraw_request(tmp_path, KEY)
    assert list(tmp_path.iterdir()) == []


def test_a_new_request_replaces_a_failed_build(tmp_path: Path) -> None:
    write_request(tmp_path, REQUEST)
    write_status(tmp_path, BuildStatus(KEY, "failed", 1.0, failure=FAILURE))
    withdraw_request(tmp_path, KEY)
    write_request(tmp_path, REQUEST)
    assert read_status(tmp_path, KEY) is None
    assert not is_withdrawn(tmp_path, KEY)


@pytest.mark.parametrize("state", ["running", "done"])
def test_a_second_set_with_the_same_inputs_does_not_begin_its_build_again(
    tmp_path: Path, state: files.State
) -> None:
    assert write_request(tmp_path, REQUEST)
    (tmp_path / KEY / files.DISK).touch()
    known = BuildStatus(KEY, state, 1.0, disk=files.DISK if state == "done" else "")
    write_status(tmp_path, known)
    (tmp_path / "queue" / KEY).unlink()
    assert not write_request(tmp_path, replace(REQUEST, set_name="lucid"))
    assert read_status(tmp_path, KEY) == known
    assert queued_builds(tmp_path) == ()


def test_a_done_build_without_its_disk_is_asked_for_again(tmp_path: Path) -> None:
    write_request(tmp_path, REQUEST)
    write_status(tmp_path, BuildStatus(KEY, "done", 1.0, disk=files.DISK))
    assert write_request(tmp_path, REQUEST)
    assert read_status(tmp_path, KEY) is None


def test_both_sides_may_write_in_the_folder_of_a_build(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_request(tmp_path, REQUEST)
    finally:
        os.umask(before)
    assert (tmp_path / KEY).stat().st_mode & 0o7777 == files.FOLDER_MODE
    assert (tmp_path / "queue").stat().st_mode & 0o7777 == files.FOLDER_MODE
    assert (tmp_path / KEY / "request.json").stat().st_mode & 0o777 == files.FILE_MODE


def test_a_missing_folder_of_builds_is_named(tmp_path: Path) -> None:
    with pytest.raises(Deferred, match="installations need this folder: No such file or directory"):
        write_request(tmp_path / "missing", REQUEST)


def test_the_same_inputs_are_the_same_build() -> None:
    key = build_key(RECIPE, DIGESTS)
    assert build_key(replace(RECIPE, iso="renamed.iso", keep=True), DIGESTS) == key
    changed = [
        (replace(RECIPE, disk=65 * MIB), DIGESTS),
        (replace(RECIPE, answers_as="floppy"), DIGESTS),
        (replace(RECIPE, answers="preseed.cfg"), DIGESTS),
        (RECIPE, {**DIGESTS, "iso": ContentDigest("c" * 64)}),
        (RECIPE, {**DIGESTS, "answers": ContentDigest("c" * 64)}),
    ]
    keys = {build_key(*inputs) for inputs in changed}
    assert len({key, *keys}) == len(changed) + 1
    assert all(files.KEY.fullmatch(one) for one in {key, *keys})
