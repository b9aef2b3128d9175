"""Older images that leave by the retention, on the embedded cloud."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest

from tests.support.clock import Clocks
from tests.support.daemon import daemon_process, opened_service, stop_daemon, wait_for_line
from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.published_sets import (
    BUCKET,
    drop,
    images,
    keys,
    publish,
    publish_several,
    retain,
    states,
    tag,
    tags,
    versions,
)
from tests.support.spool_files import KEEP
from tests.support.waiting import until
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.state.image_marks import ImageReference
from uecwatchd.sandbox.state.instances import Instance

pytestmark = pytest.mark.exhaustive

DAY = 86400.0


def decisions(host: Host, *words: str) -> dict[str, tuple[str, str]]:
    """Step and reason by image, as `prune --dry-run` has them."""
    found = json.loads(host.ask("prune", *words, "--dry-run", "--json")[0])
    return {one["id"]: (one["step"], one["why"]) for one in found}


def run_instance(host: Host, image_id: str, state: str = "running") -> None:
    since = "2026-11-30T00:00:00.000+00:00"
    draft = Instance(
        *("", "", image_id, "", "", "m1.small", "", state, since, "", "", "", "boots"), 0, 0, "", ""
    )
    host.cloud.backend.registry.add_instances(draft, count=1)


# --- what leaves ------------------------------------------------------------------------------------------


def test_without_retention_all_images_stay(host: Host) -> None:
    made = publish_several(host, 4)
    assert images(host) == sorted(made)
    assert {step for step, _ in decisions(host).values()} == {"stay"}


def test_a_publication_removes_what_is_beyond_the_number_to_keep(host: Host) -> None:
    retain(host, "keep = 2")
    made = publish_several(host, 4)
    assert images(host) == sorted(made[2:])
    assert len(keys(host)) == 2 * 2, "a manifest and a part each"
    assert states(host) == dict(zip(made, ["removed", "removed", "older", "current"], strict=True))


def test_removals_withdrawals_and_rollbacks_are_counted(host: Host) -> None:
    retain(host, "keep = 2")
    publish_several(host, 4)
    host.ask("rollback", "karmic", "--yes")
    host.ask("withdraw", "karmic", "--yes")
    with closing(open_ledger(host.state)) as book:
        totals = book.history.totals()
    counted = {key.detail: value for key, value in totals.items() if key.what == "changes"}
    assert counted == {"removed": 2.0, "rolled-back": 1.0, "withdrawn": 1.0}


def test_one_to_keep_is_two(host: Host) -> None:
    retain(host, "keep = 1")
    made = publish_several(host, 3)
    assert images(host) == sorted(made[1:])


def test_none_to_keep_is_refused(host: Host) -> None:
    retain(host, "keep = 0")
    _, talk = host.ask("check", code=78)
    assert "retention.keep must be 1 or more: the image in use, and the one before it, always stay" in talk


def test_a_sidecar_decides_for_its_set(host: Host) -> None:
    retain(host, "keep = 5")
    made = publish_several(host, 4, sidecar=f"{KEEP}retention = {{ keep = 2 }}\n")
    assert images(host) == sorted(made[2:])


def test_a_sidecar_with_none_to_keep_is_rejected(host: Host) -> None:
    with pytest.raises(AssertionError, match="rejected"):
        publish(host, sidecar=f"{KEEP}retention = {{ keep = 0 }}\n")
    assert "retention.keep must be 1 or more" in (host.spool / "karmic.uec.error").read_text()


def test_a_folder_decides_for_its_sets(host: Host) -> None:
    text = host.config.read_text()
    host.configure(f'{text}\n[spool.policy."{host.spool}"]\nretention = {{ keep = 2 }}\n')
    made = publish_several(host, 3)
    assert images(host) == sorted(made[1:])


def test_a_young_image_stays_until_it_is_old(host: Host) -> None:
    retain(host, 'keep = 2\nmin_age = "30d"')
    made = publish_several(host, 3)
    assert images(host) == sorted(made)
    assert decisions(host)[made[0]] == ("stay", "it is younger than 30d")
    clocks = Clocks()
    clocks.pass_by(31 * DAY)
    with opened_service(host, Recorder(), now=clocks.now, monotonic=clocks.monotonic) as service:
        service.once()
    assert images(host) == sorted(made[1:])


def test_a_daemon_looks_once_a_day(host: Host) -> None:
    publish_several(host, 3)
    retain(host, "keep = 2")
    with daemon_process(host) as daemon:
        until(lambda: len(images(host)) == 2, "the first look")
        stop_daemon(daemon)


def test_by_hand_each_image_has_a_reason(host: Host) -> None:
    made = publish_several(host, 4)
    retain(host, "keep = 3")
    data, talk = host.ask("prune", "karmic")
    lines = data.splitlines()
    assert len(lines) == 4
    assert lines[0].endswith(f"{made[3]}  stay: it is in use")
    assert lines[3].endswith(f"{made[0]}  remove: newer than it are 3 that stay")
    assert f"karmic: deregistered machine {made[0]} on cloud default" in talk
    assert images(host) == sorted(made[1:])
    assert "0 of 3 images are due" in host.ask("prune")[1]


def test_by_hand_a_running_daemon_does_it(host: Host) -> None:
    made = publish_several(host, 3)
    with daemon_process(host) as daemon:
        wait_for_line(daemon, "Watching")
        retain(host, "keep = 2")
        daemon.send_signal(signal.SIGHUP)
        wait_for_line(daemon, "Read the configuration again")
        host.ask("prune")
        assert images(host) == sorted(made[1:])
        stop_daemon(daemon)


def test_kernels_leave_when_nothing_starts_with_them(host: Host, small_set: RealSet) -> None:
    retain(host, "keep = 2")
    host.drop_set(small_set)
    host.ask("once")
    first = {(host.spool / f"karmic{ending}").read_text().strip() for ending in (".eki", ".eri")}
    for number in range(3):
        with (host.spool / "karmic.img").open("ab") as image:
            image.write(bytes([number + 1]) * 4096)
        if number == 0:
            with (host.spool / "karmic.initrd").open("ab") as more:
                more.write(bytes(512))
        host.ask("once")
    left = set(images(host))
    kernel, ramdisk = ((host.spool / f"karmic{ending}").read_text().strip() for ending in (".eki", ".eri"))
    assert len(left) == 2 + 2
    assert {kernel, ramdisk} <= left
    assert left & first == {kernel}, "the first ramdisk has left with its machine"


# --- what stays -------------------------------------------------------------------------------------------


def test_what_an_instance_uses_stays_until_that_has_ended(host: Host) -> None:
    made = publish_several(host, 3)
    retain(host, "keep = 2")
    run_instance(host, made[0])
    assert decisions(host)[made[0]][1].startswith("instance i-")
    host.ask("once")
    assert images(host) == sorted(made)
    (instance,) = host.cloud.backend.registry.instances()
    host.cloud.backend.registry.change_instance(instance.id, lambda found: replace(found, state="terminated"))
    host.ask("once")
    assert images(host) == sorted(made[1:])


def test_what_another_set_has_stays(host: Host) -> None:
    made = publish_several(host, 3)
    assert publish(host, "lucid", seed=0) == made[0]
    retain(host, "keep = 2")
    assert decisions(host, "karmic")[made[0]] == ("stay", "set lucid uses it")
    host.ask("once")
    assert images(host) == sorted(made)


@pytest.mark.parametrize(("key", "value"), [("host", "elsewhere"), ("owner", "me")])
def test_what_strangers_have_tagged_stays(host: Host, key: str, value: str) -> None:
    made = publish_several(host, 3)
    retain(host, "keep = 2")
    tag(host, made[0], key, value)
    host.ask("once")
    assert images(host) == sorted(made)
    assert f"its tag {key} is" in decisions(host)[made[0]][1]


def test_an_image_of_another_owner_of_the_name_stays(host: Host) -> None:
    made = publish_several(host, 4)
    with closing(open_ledger(host.state)) as book:
        for image_id, owner in zip(made, (1001, 1002, 1002, 1002), strict=True):
            bundle = book.bundle_of("default", image_id)
            assert bundle
            book.put_bundle(replace(bundle, owner=owner))
    retain(host, "keep = 2")
    assert decisions(host)[made[0]] == ("stay", "it belongs to another owner, who had this name before")
    host.ask("once")
    assert images(host) == sorted([made[0], *made[2:]])


def test_images_in_a_cloud_that_is_not_configured_any_more_are_left_alone(host: Host) -> None:
    made = publish_several(host, 3)
    text = host.config.read_text().replace("[cloud.default]", "[cloud.other]")
    host.configure(text)
    retain(host, "keep = 2")
    _, talk = host.ask("prune")
    assert "its images in cloud default are left alone, which is not configured" in talk
    _, talk = host.ask("withdraw", "karmic", "--yes", code=65)
    assert "stays in cloud default, which is not configured" in talk
    assert images(host) == sorted(made)


def test_an_image_that_was_removed_by_hand_loses_its_bundle_when_it_is_due(host: Host) -> None:
    made = publish_several(host, 4)
    host.cloud.backend.registry.remove_image(made[0])
    retain(host, "keep = 3")
    host.ask("once")
    assert images(host) == sorted(made[1:])
    assert len(keys(host)) == 3 * 2
    assert states(host)[made[0]] == "removed"


def test_nothing_leaves_if_the_image_in_use_was_removed_by_hand(host: Host) -> None:
    made = publish_several(host, 4)
    host.cloud.backend.registry.remove_image(made[3])
    retain(host, "keep = 2")
    host.ask("once")
    assert images(host) == sorted(made[:3])
    assert {why for _, why in decisions(host).values()} == {
        f"the image in use, {made[3]}, is gone from the cloud"
    }


def test_nothing_leaves_while_a_newer_image_does_not_work(host: Host) -> None:
    publish_several(host, 3)
    (host.spool / "karmic.toml").write_text("machine = 1\n")
    host.ask("once", code=65)
    retain(host, "keep = 2")
    host.ask("once", code=65)
    assert len(images(host)) == 3


def test_an_error_ends_the_run_and_the_next_one_goes_on(host: Host) -> None:
    made = publish_several(host, 5)
    retain(host, "keep = 2")
    host.cloud.faults.arm("delete-500", 1)
    _, talk = host.ask("prune", code=75)
    assert "nothing more is removed now" in talk
    assert len(images(host)) == 4
    host.ask("prune")
    assert images(host) == sorted(made[3:])
    assert len(keys(host)) == 2 * 2


def test_an_error_with_one_set_keeps_the_images_of_the_others(host: Host) -> None:
    for name, first in (("karmic", 0), ("lucid", 10)):
        for seed in range(first, first + 3):
            publish(host, name, seed=seed)
    retain(host, "keep = 2")
    before = len(images(host))
    host.cloud.faults.arm("delete-500", 1)
    host.ask("once")
    assert len(images(host)) == before - 1


def test_two_hosts_with_one_account_do_not_harm_each_other(make_host: Callable[..., Host]) -> None:
    """Both drop the same images; what the second has found is in its tags."""
    one, other = make_host("one"), make_host("other")
    made = publish_several(one, 3)
    for seed in range(3):
        drop(other, seed=seed)
        elsewhere(other, "once")
    assert list(reversed([version.image_id for version in versions(other)])) == made
    retain(one, "keep = 2")
    retain(other, "keep = 2")
    one.ask("once")
    elsewhere(other, "once")
    assert images(one) == sorted(made)
    assert decisions(one)[made[0]] == ("stay", "its tag host is elsewhere")
    found = json.loads(elsewhere(other, "prune", "--dry-run", "--json"))
    assert found[-1]["why"] == "it was not registered by this host, or before its ledger was lost"


def elsewhere(host: Host, *arguments: str) -> str:
    """Run the program on a machine with another name; return its data."""
    renamed = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]
    ended = subprocess.run(
        [*renamed, sys.executable, "-m", "uecwatchd", *arguments],
        env={**os.environ, "UECWATCHD_CONFIG": str(host.config)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


# --- where the cloud can do more --------------------------------------------------------------------------


def test_amazon_deprecates_first(amazon: Host) -> None:
    retain(amazon, 'keep = 2\ndeprecate_after = "0m"\ndelete_after = "60d"')
    made = publish_several(amazon, 4, sidecar='virtualization = "hvm"\nconvert = "keep"\n')
    assert states(amazon) == dict(zip(made, ["deprecated", "deprecated", "older", "current"], strict=True))
    assert sorted(amazon.cloud.backend.registry.marks.deprecations()) == sorted(made[:2])


def test_amazon_tells_of_launch_templates(amazon: Host) -> None:
    made = publish_several(amazon, 3, sidecar='virtualization = "hvm"\nconvert = "keep"\n')
    template = ImageReference(made[0], "ec2:LaunchTemplate", "arn:aws:ec2:r:0:launch-template/lt-1")
    amazon.cloud.backend.registry.marks.refer(template)
    retain(amazon, "keep = 2")
    amazon.ask("once")
    assert images(amazon) == sorted(made)
    assert decisions(amazon)[made[0]][1] == f"{template.type} {template.arn} uses it"


def test_a_bucket_that_was_made_here_goes_when_it_is_empty(host: Host) -> None:
    sidecar = KEEP + 'bucket = "team-{}"\n'
    retain(host, "keep = 2")
    for seed in range(3):
        publish(host, seed=seed, sidecar=sidecar.format(seed))
    assert "team-0" not in {bucket.name for bucket in host.cloud.backend.store.buckets()}
    assert keys(host, "team-1") != []


def test_a_bucket_that_was_there_before_stays(host: Host) -> None:
    publish(host)  # makes the configured one
    retain(host, "keep = 2")
    with closing(open_ledger(host.state)) as book:
        assert book.made_buckets("default") == frozenset()
    assert BUCKET in {bucket.name for bucket in host.cloud.backend.store.buckets()}


# --- the latest one ---------------------------------------------------------------------------------------


def test_the_image_in_use_is_marked(host: Host) -> None:
    retain(host, "keep = 2")
    made = publish_several(host, 3)
    assert (host.spool / "karmic.latest").read_text() == f"{made[2]}\n"
    assert [tags(host, one).get("latest") for one in made] == [None, None, "karmic"]


def test_without_retention_nothing_is_marked(host: Host) -> None:
    image_id = publish(host)
    assert not (host.spool / "karmic.latest").exists()
    assert "latest" not in tags(host, image_id)


def test_each_version_is_known_with_what_replaced_it(host: Host) -> None:
    first, second = publish_several(host, 2)
    newer, older = versions(host)
    assert (newer.image_id, newer.state) == (second, "current")
    assert (older.image_id, older.state, older.replaced_by) == (first, "older", second)
    assert older.replaced == newer.published


def test_a_replaced_image_is_no_version_in_the_cloud(host: Host) -> None:
    made = publish_several(host, 2, sidecar=f'{KEEP}on_existing = "replace"\n')
    assert states(host) == dict(zip(made, ["removed", "current"], strict=True))
    assert versions(host)[1] == replace(versions(host)[1], replaced_by=made[1])
