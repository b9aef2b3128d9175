"""Orphans in buckets and accounts: found, and removed on demand."""

import json
import time

import pytest

from tests.support.daemon import daemon_process, stop_daemon, wait_for_line
from tests.support.host import Host
from tests.support.published_sets import BUCKET, images, keys, lose_ledger, publish, publish_several, tag
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.connect import connect
from uecwatchd.clouds.images import Image, list_images
from uecwatchd.clouds.objects import ListedObject, put_object
from uecwatchd.config.records import CloudSettings
from uecwatchd.delivery.orphans import ON_ITS_WAY_SECONDS, AccountContents, find_orphans
from uecwatchd.delivery.version_facts import AccountUse

NOBODY = AccountUse({}, {})
STRAY = "karmic-0123456789abcdef"


def orphans(host: Host, *words: str, code: int = 0) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(host.ask("orphans", "--json", *words, code=code)[0])
    return found


@pytest.fixture
def cloud(host: Host) -> Cloud:
    settings = CloudSettings(name="default", dialect="sandbox", eucarc=host.cloud.eucarc)
    return connect(settings, uploads=1, before={})


def test_what_the_ledger_knows_is_no_orphan(host: Host) -> None:
    publish_several(host, 2)
    assert orphans(host) == []


def test_an_image_of_a_forgotten_set_is_one(host: Host) -> None:
    image_id = publish(host)
    (host.spool / "karmic.img").unlink()
    (host.spool / "karmic.toml").unlink()
    host.ask("forget", "karmic")
    (found,) = orphans(host)
    assert (found["kind"], found["name"], found["why"]) == ("image", image_id, "no set has it any more")
    assert found["stays"] is None
    assert images(host) == [image_id], "it is only listed"


def test_images_of_a_lost_ledger_are_orphans_until_their_sets_adopt_them(host: Host) -> None:
    first, second = publish_several(host, 2)
    lose_ledger(host)
    assert {one["name"] for one in orphans(host)} == {first, second}
    host.ask("once")
    assert {one["name"] for one in orphans(host)} == {first}


def test_orphans_are_removed_on_demand(host: Host) -> None:
    publish_several(host, 2)
    lose_ledger(host)
    host.ask("once")
    kept = (host.spool / "karmic.emi").read_text().strip()
    (found,) = orphans(host, "--remove", "--yes")
    assert found["removed"]
    assert images(host) == [kept]
    assert len(keys(host)) == 2
    assert orphans(host) == []


def test_a_script_has_to_say_yes(host: Host) -> None:
    publish(host)
    lose_ledger(host)
    before = (images(host), keys(host))
    assert host.run("orphans", "--remove").returncode == 64
    assert (images(host), keys(host)) == before


def test_nothing_is_removed_while_a_daemon_runs(host: Host) -> None:
    publish_several(host, 2)
    lose_ledger(host)
    with daemon_process(host) as daemon:
        wait_for_line(daemon, "is emi-")
        _, talk = host.ask("orphans", "--remove", "--yes", code=75)
        assert "holds its lock" in talk
        assert "A set that it works on may take any of them" in talk
        stop_daemon(daemon)
    assert len(images(host)) == 2


@pytest.mark.parametrize(("key", "value"), [("host", "elsewhere"), ("owner", "me")])
def test_what_another_host_or_a_person_has_is_no_orphan(host: Host, key: str, value: str) -> None:
    image_id = publish(host)
    lose_ledger(host)
    tag(host, image_id, key, value)
    assert orphans(host) == []


def test_what_an_instance_uses_stays(host: Host, cloud: Cloud) -> None:
    image_id = publish(host)
    lose_ledger(host)
    cloud.ec2.run_instances(ImageId=image_id, MinCount=1, MaxCount=1)
    (found,) = orphans(host, "--remove", "--yes")
    assert "instance i-" in str(found["stays"])
    assert images(host) == [image_id]


def test_parts_without_an_image_are_orphans_only_after_a_week(host: Host, cloud: Cloud) -> None:
    publish(host)
    for key in (f"{STRAY}.part.0", "notes.txt", "karmic.part.0"):
        put_object(cloud, BUCKET, key, b"1")
    (found,) = orphans(host)
    assert (found["kind"], found["name"], found["objects"]) == (
        "bundle",
        f"{BUCKET}/{STRAY}.manifest.xml",
        [f"{STRAY}.part.0"],
    )
    assert "may be on its way from another host" in str(found["stays"])
    orphans(host, "--remove", "--yes")
    assert f"{STRAY}.part.0" in keys(host)


# --- the rules --------------------------------------------------------------------------------------------


def found_in(objects: dict[str, list[ListedObject]], *listed: Image, **how: object) -> list[tuple[str, str]]:
    account = AccountContents(listed, objects, (), frozenset())
    arguments = {"host": "here", "has_tags": True, "now": time.time(), **how}
    return [(one.name, one.stays) for one in find_orphans(account, NOBODY, **arguments)]


def test_an_upload_that_another_host_may_still_finish_stays() -> None:
    now = 1e9
    objects = {BUCKET: [ListedObject(f"{STRAY}.part.{number}", 10, now - number) for number in range(3)]}
    name = f"{BUCKET}/{STRAY}.manifest.xml"
    assert found_in(objects, now=now + ON_ITS_WAY_SECONDS - 1)[0][1] != ""
    assert found_in(objects, now=now + ON_ITS_WAY_SECONDS) == [(name, "")]


def test_without_tags_an_image_may_be_of_another_host(host: Host, cloud: Cloud) -> None:
    publish(host)
    (image,) = list_images(cloud)
    assert found_in({BUCKET: []}, image, has_tags=False) == [
        (image.id, "the cloud has no tags: it may belong to another host")
    ]
    assert found_in({"other": []}, image, has_tags=False) == []
