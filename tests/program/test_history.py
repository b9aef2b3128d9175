"""The history that the program leaves in its ledger, on real sets."""

from contextlib import closing

import pytest

from tests.support.host import Host
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.history import AttemptRecord, StoryEntry
from uecwatchd.ledger.sqlite import read_ledger
from uecwatchd.types import SetId


@pytest.fixture
def replaced(host: Host, real_set: RealSet) -> Host:
    """A set that was registered, refused with a bad sidecar, and replaced by another content."""
    host.drop(real_set.machine, real_set.kernel, real_set.ramdisk, names=["k.img", "k.vmlinuz", "k.initrd"])
    sidecar = host.spool / "k.toml"
    sidecar.write_text('on_existing = "replace"\n')
    assert host.run("once").returncode == 0
    sidecar.write_text("on_existing = 1\n")
    assert host.run("once").returncode == 65
    sidecar.write_text('on_existing = "replace"\n')
    with (host.spool / "k.img").open("r+b") as image:
        image.seek(-512, 2)
        image.write(b"another")
    assert host.run("once").returncode == 0
    return host


def history(host: Host) -> tuple[tuple[AttemptRecord, ...], tuple[StoryEntry, ...]]:
    ledger = read_ledger(host.state)
    assert ledger
    with closing(ledger):
        set_id = SetId(str(host.spool), "k")
        return ledger.history.attempts(set_id), ledger.history.story(set_id)


def test_attempts_and_their_sentences_stay_in_the_ledger(replaced: Host) -> None:
    attempts, story = history(replaced)
    first, last = attempts
    assert (first.state, last.state) == ("done", "done")
    assert set(first.ids) == {"machine", "kernel", "ramdisk"}
    assert first.sent > last.sent > 0
    assert last.replaced == first.ids["machine"] != last.ids["machine"]
    assert [stage.name for stage in first.stages][-1] == "publish"
    assert 0 < sum(stage.seconds for stage in first.stages) <= first.ended - first.began + 0.1
    kinds = [entry.kind for entry in story]
    assert kinds.count("done") == 2
    assert kinds.count("rejected") == 1
    assert [entry.moment for entry in story] == sorted(entry.moment for entry in story)


def test_a_repeated_failure_is_in_the_history_each_time(host: Host, real_set: RealSet) -> None:
    host.drop(real_set.machine, real_set.kernel, real_set.ramdisk, names=["k.img", "k.vmlinuz", "k.initrd"])
    host.cloud.faults.arm("put-500", 1000.0)
    for _ in range(2):
        assert host.run("once").returncode == 69
        assert host.run("retry", "k").returncode == 0
    attempts, story = history(host)
    assert [(one.number, one.state) for one in attempts] == [(1, "deferred"), (2, "deferred")]
    assert [entry.kind for entry in story].count("deferred") == 2
    assert all(one.problem and one.ids.keys() == set() for one in attempts)
