"""Attributes of an image, and replacement of the older one, on the embedded cloud."""

import random
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.daemon import stop_while_waiting
from tests.support.host import Host, cloud_host
from tests.support.listener import Recorder
from tests.support.spool_files import drop_image
from uecwatchd.clouds.attributes import Permissions, permissions, tag
from uecwatchd.clouds.client import Cloud, make_cloud
from uecwatchd.clouds.connect import connect
from uecwatchd.clouds.credentials.account import gather
from uecwatchd.clouds.dialects import EUCA4
from uecwatchd.clouds.images import Image, list_images
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.load import load
from uecwatchd.config.records import CloudSettings
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.service.daemon import Service

OTHER, THIRD = "123456789012", "210987654321"
DISK_BYTES = 2 << 20


def disk(seed: int) -> bytes:
    """A whole disk with one Linux partition from its second half on, and noise in it."""
    entry = struct.pack("<B3sB3sII", 0x80, b"\0" * 3, 0x83, b"\0" * 3, 2048, 2048)
    noise = random.Random(seed).randbytes(DISK_BYTES // 2)  # noqa: S311 (only to be another image)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa" + bytes(DISK_BYTES // 2 - 512) + noise


def drop(host: Host, sidecar: str = "", *, seed: int = 1, name: str = "karmic") -> None:
    virtualization = "" if "virtualization" in sidecar else 'virtualization = "hvm"\n'
    drop_image(host.spool, name, disk(seed), sidecar=virtualization + sidecar)


def registered(host: Host, name: str = "karmic") -> str:
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    return (host.spool / f"{name}.emi").read_text().strip()


@pytest.fixture
def cloud(embedded_cloud: Sandbox) -> Cloud:
    settings = CloudSettings(name="default", dialect="sandbox", eucarc=embedded_cloud.eucarc)
    return connect(settings, uploads=1, before={})


def listed(cloud: Cloud, image_id: str) -> Image:
    (found,) = (image for image in list_images(cloud) if image.id == image_id)
    return found


def test_the_list_of_images_leads_back_to_the_file(host: Host, cloud: Cloud) -> None:
    drop(host, 'version = "9.10.3"\ntags = { team = "infra" }')
    image_id = registered(host)
    (member,) = host.report("karmic")["members"]
    assert dict(listed(cloud, image_id).tags) == {
        "owner": "uecwatchd",
        "sha256": member["sha256"],
        "host": socket.gethostname(),
        "source": "karmic.img",
        "version": "9.10.3",
        "team": "infra",
    }


def test_what_the_user_asked_for_stays_where_there_is_not_room_for_all_tags(host: Host, cloud: Cloud) -> None:
    wanted = {f"key{number}": "yes" for number in range(9)}
    said = ", ".join(f'{key} = "yes"' for key in wanted)
    drop(host, f"tags = {{ {said} }}")
    tags = dict(listed(cloud, registered(host)).tags)
    assert len(tags) == cloud.dialect.tag_limit
    assert tags.items() >= wanted.items()
    assert host.report("karmic")["remarks"] == []


def test_a_description_and_permissions_are_as_the_sidecar_says(host: Host, cloud: Cloud) -> None:
    drop(host, f'description = "Karmic, nightly"\npublic = true\nshare = ["{OTHER}"]')
    image_id = registered(host)
    assert listed(cloud, image_id).description == "Karmic, nightly"
    assert permissions(cloud, image_id) == Permissions(public=True, accounts=frozenset({OTHER}))


def test_a_description_that_is_edited_changes_the_image_that_is_there(host: Host, cloud: Cloud) -> None:
    drop(host, 'description = "first"\non_existing = "replace"')
    image_id = registered(host)
    drop(host, 'description = "second"\non_existing = "replace"')
    assert registered(host) == image_id
    assert listed(cloud, image_id).description == "second"
    assert len(host.cloud.calls("RegisterImage")) == 1


def test_the_log_says_who_may_start_an_image_as_the_cloud_says_it(host: Host) -> None:
    drop(host, f'public = false\nshare = ["{OTHER}"]')
    image_id = registered(host)
    log = host.spool / "karmic.uec.log"
    assert f"karmic: {image_id} may be started by its owner and {OTHER}" in log.read_text()
    drop(host, "public = false\nshare = []")
    registered(host)
    assert f"karmic: {image_id} may be started by its owner alone" in log.read_text()
    drop(host, "public = true")
    registered(host)
    assert f"karmic: {image_id} may be started by everybody" in log.read_text()


def test_a_set_that_shares_its_image_with_another_is_told_whose_word_holds(host: Host) -> None:
    drop(host, "public = false", name="twin")
    registered(host, "twin")
    drop(host, "public = true")
    image_id = registered(host)
    assert f"{image_id} is the image of twin too" in (host.spool / "karmic.uec.log").read_text()


def test_a_kernel_that_others_boot_with_is_not_taken_from_them(
    host: Host, cloud: Cloud, small_set: RealSet
) -> None:
    host.drop_set(small_set, "a")
    (host.spool / "a.toml").write_text("public = true\n")
    registered(host, "a")
    (host.spool / "a.toml").write_text("public = false\n")
    machine = registered(host, "a")
    kernel = (host.spool / "a.eki").read_text().strip()
    assert not permissions(cloud, machine).public
    assert permissions(cloud, kernel).public
    log = (host.spool / "a.uec.log").read_text().rpartition("--- attempt")[2]
    assert f"{machine} may be started by its owner alone" in log
    assert f"{kernel} may be started by everybody" in log


def test_editing_the_sidecar_changes_who_may_start_the_same_image(host: Host, cloud: Cloud) -> None:
    drop(host, f'public = true\nshare = ["{OTHER}"]')
    image_id = registered(host)
    drop(host, f'public = false\nshare = ["{THIRD}"]')
    assert registered(host) == image_id
    assert permissions(cloud, image_id) == Permissions(public=False, accounts=frozenset({THIRD}))
    assert len(host.cloud.calls("RegisterImage")) == 1


def test_what_a_cloud_has_not_got_is_reported_and_undoes_nothing(tmp_path: Path) -> None:
    with cloud_host(tmp_path, "euca3") as host:
        cloud = host.cloud
        drop(host, 'virtualization = "paravirtual"\nkernel = "none"\ntags = { team = "infra" }')
        image_id = registered(host)
        remark = (
            f"cloud default, tagging {image_id}: it has no tags."
            " Ask its administrator; the image itself is registered."
        )
        assert host.report("karmic")["remarks"] == [remark]
        log = (host.spool / "karmic.uec.log").read_text()
        assert f"karmic: it is registered, but something requested is missing: {remark.split('. ')[0]}" in log
        assert f"not done: {remark}" in host.run("status", "karmic").stdout
        assert [seen.code for seen in cloud.refusals] == ["NoSuchBucket"]  # which was then made


def test_an_older_image_is_taken_away_when_it_is_to_be_replaced(host: Host, cloud: Cloud) -> None:
    drop(host, seed=1)
    old = registered(host)
    drop(host, 'on_existing = "replace"', seed=2)
    new = registered(host)
    assert [image.id for image in list_images(cloud)] == [new]
    assert old != new
    keys = {stored.key for stored in host.cloud.objects("uec-images")}
    kept = host.report("karmic")["manifests"][0].partition("/")[2].removesuffix(".manifest.xml")
    assert {key.split(".")[0] for key in keys} == {kept}
    assert f"deregistered {old}, which it replaces" in (host.spool / "karmic.uec.log").read_text()
    assert host.run("verify", "karmic").returncode == 0


def test_who_waits_for_an_older_image_that_another_set_works_on_can_be_stopped(
    host: Host, listener: Recorder
) -> None:
    drop(host, seed=1)
    registered(host)
    drop(host, 'on_existing = "replace"', seed=2)
    with closing(open_ledger(host.state)) as book:
        (older,) = book.all_bundles()
        service = Service(load(host.config, environ={}), listener=listener, ledger=book)
        claimed = f"{older.cloud}/{older.identity}"
        record = stop_while_waiting(service, book, claimed=claimed, stage="replace the older")
    assert record.state == "queued"


def test_an_older_image_stays_when_nothing_is_said_of_it(host: Host, cloud: Cloud) -> None:
    drop(host, seed=1)
    old = registered(host)
    drop(host, seed=2)
    new = registered(host)
    assert {image.id for image in list_images(cloud)} == {old, new}


def test_an_image_that_another_set_has_for_its_own_is_not_taken_away(host: Host, cloud: Cloud) -> None:
    drop(host, seed=1)
    drop(host, seed=1, name="twin")
    shared = registered(host)
    assert (host.spool / "twin.emi").read_text().strip() == shared
    drop(host, 'on_existing = "replace"', seed=2)
    new = registered(host)
    assert {image.id for image in list_images(cloud)} == {shared, new}


def test_only_what_this_host_registered_is_replaced(host: Host, cloud: Cloud, tmp_path: Path) -> None:
    other = type(host).made(tmp_path / "other", host.cloud)
    drop(other, seed=1)
    foreign = registered(other)
    drop(host, 'on_existing = "replace"', seed=2)
    new = registered(host)
    assert {image.id for image in list_images(cloud)} == {foreign, new}


def test_one_that_exists_is_refused_when_it_is_to_be_new(host: Host, tmp_path: Path) -> None:
    other = type(host).made(tmp_path / "other", host.cloud)
    drop(other, seed=1)
    foreign = registered(other)
    drop(host, 'on_existing = "fail"', seed=1)
    assert host.run("once").returncode == 65
    error = (host.spool / "karmic.uec.error").read_text()
    assert "karmic: it is registered already" in error
    assert f'{foreign} on cloud default has the same content, and on_existing = "fail"' in error
    assert not host.cloud.calls("PutObject")[len(other.cloud.calls("PutObject")) :]


def test_a_set_that_is_to_be_new_may_be_touched_once_it_is_registered(host: Host) -> None:
    drop(host, 'on_existing = "fail"', seed=1)
    image_id = registered(host)
    drop(host, 'on_existing = "fail"', seed=1)
    assert registered(host) == image_id
    assert len(host.cloud.calls("RegisterImage")) == 1


def test_what_another_set_began_belongs_to_the_one_that_registers_it(host: Host, listener: Recorder) -> None:
    host.cloud.faults.arm("put-503", 1)
    drop(host, seed=1, name="lucid")
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        (record,) = Service(settings, listener=listener, ledger=book, patience=RetryPolicy(tries=())).once()
    assert record.state == "deferred"
    for file in host.spool.glob("lucid.*"):
        file.unlink()
    drop(host, 'on_existing = "fail"', seed=1)
    image_id = registered(host)
    drop(host, 'on_existing = "fail"', seed=1)
    assert registered(host) == image_id, "it is not refused its own image"


@pytest.mark.parametrize("existing", ["reuse", "replace", "fail"])
def test_a_name_that_is_taken_is_known_before_anything_goes_up(host: Host, existing: str) -> None:
    drop(host, 'name = "karmic"', seed=1)
    holder = registered(host)
    sent = len(host.cloud.calls("PutObject"))
    drop(host, f'name = "karmic"\non_existing = "{existing}"', seed=2)
    assert host.run("once").returncode == 65
    error = (host.spool / "karmic.uec.error").read_text()
    assert f"{holder} on cloud default has it, with another content (it is available)" in error
    assert len(host.cloud.calls("PutObject")) == sent
    assert holder in [image.id for image in host.cloud.images]


# --- what is taken out of a sidecar -----------------------------------------------------------------------


def test_a_tag_that_is_taken_out_of_the_sidecar_is_taken_off_the_image(host: Host, cloud: Cloud) -> None:
    drop(host, 'version = "1"\ntags = { team = "infra", site = "berlin" }')
    image_id = registered(host)
    assert {"team", "site", "version"} <= dict(listed(cloud, image_id).tags).keys()
    drop(host, 'tags = { site = "paris" }')
    assert registered(host) == image_id
    tags = dict(listed(cloud, image_id).tags)
    assert tags["site"] == "paris"
    assert not {"team", "version"} & tags.keys()
    assert f"took the tags team, version off {image_id}" in (host.spool / "karmic.uec.log").read_text()


def test_the_tags_on_one_cloud_are_remembered_while_the_set_goes_to_another(host: Host, cloud: Cloud) -> None:
    nowhere = 'ec2_url = "http://127.0.0.1:1/ec2"\ns3_url = "http://127.0.0.1:1/s3"\n'
    far = f'[cloud.far]\ndialect = "sandbox"\neucarc = "{host.cloud.eucarc}"\n{nowhere}'
    host.configure(f"{host.config.read_text()}\n{far}")
    drop(host, 'tags = { team = "infra" }')
    image_id = registered(host)
    drop(host, 'clouds = ["far"]')
    assert host.run("once").returncode != 0
    drop(host)
    assert registered(host) == image_id
    assert "team" not in dict(listed(cloud, image_id).tags)


def test_a_description_that_is_taken_out_of_the_sidecar_is_taken_off_the_image(
    host: Host, cloud: Cloud
) -> None:
    drop(host, 'description = "nightly"')
    image_id = registered(host)
    drop(host)
    assert registered(host) == image_id
    assert listed(cloud, image_id).description == ""


def test_what_somebody_else_gave_an_image_stays(host: Host, cloud: Cloud) -> None:
    drop(host, 'tags = { team = "infra" }')
    drop(host, 'tags = { team = "infra" }\ndescription = "of both"', name="twin")
    image_id = registered(host)
    cloud.ec2.create_tags(Resources=[image_id], Tags=[{"Key": "byhand", "Value": "yes"}])
    drop(host)
    assert registered(host) == image_id
    found = listed(cloud, image_id)
    assert (dict(found.tags).get("team"), dict(found.tags).get("byhand")) == ("infra", "yes"), "twin has it"
    assert found.description == "of both"


def test_there_is_room_for_new_tags_where_old_ones_go(host: Host, cloud: Cloud) -> None:
    drop(host, "tags = { " + ", ".join(f'a{number} = "yes"' for number in range(10)) + " }")
    image_id = registered(host)
    wanted = {f"b{number}": "yes" for number in range(10)}
    drop(host, "tags = { " + ", ".join(f'{key} = "yes"' for key in wanted) + " }")
    registered(host)
    assert dict(listed(cloud, image_id).tags) == wanted
    assert host.report("karmic")["remarks"] == []


def test_what_an_image_has_already_is_not_written_again(host: Host) -> None:
    drop(host, 'tags = { team = "infra" }')
    registered(host)
    written = len(host.cloud.calls("CreateTags"))
    drop(host, 'tags = { team = "infra" }')
    drop(host, 'tags = { team = "infra" }', name="twin", seed=2)
    registered(host)
    assert len(host.cloud.calls("CreateTags")) - written == 1, "of the other image alone"


# --- accounts it can be shared with -----------------------------------------------------------------------

PROJECT = "0123456789abcdef" * 2
OLD = 'virtualization = "paravirtual"\nkernel = "none"\n'


@pytest.mark.parametrize(
    ("generation", "said", "why"),
    [
        ("openstack", f'share = ["{OTHER}"]', "lets everybody start an image, or its owner alone"),
        ("openstack", f'share = ["{PROJECT}"]', "lets everybody start an image, or its owner alone"),
        ("euca5", f'share = ["{PROJECT}"]', f"{PROJECT} is no account there, which has 12 digits"),
        ("sandbox", f'share = ["{OTHER}", "{PROJECT}"]', f"{PROJECT} is no account there"),
        ("euca3", f'{OLD}share = ["alice"]', "alice is no account there, which has 12 digits"),
        (
            "uec",
            f'{OLD}share = ["alice", "{OTHER}"]',
            f"{OTHER} is no account there, which has the name of a user",
        ),
    ],
)
def test_a_share_that_a_cloud_cannot_make_is_known_before_anything_goes_up(
    tmp_path: Path, generation: str, said: str, why: str
) -> None:
    with cloud_host(tmp_path, generation) as host:
        cloud = host.cloud
        drop(host, said)
        assert host.run("once").returncode == 65
        assert why in (host.spool / "karmic.uec.error").read_text()
        assert not cloud.calls("PutObject")


@pytest.mark.parametrize("name", ["alice", "bob.smith-2", "carol@example.org"])
def test_the_first_generation_shares_with_users_by_their_names(tmp_path: Path, name: str) -> None:
    with cloud_host(tmp_path, "uec", administrator=True) as host:
        drop(host, f'{OLD}public = false\nshare = ["{name}"]')
        image_id = registered(host)
        cloud = connect(load(host.config, environ={}).clouds["default"], uploads=1, before={})
        assert permissions(cloud, image_id) == Permissions(public=False, accounts=frozenset({name}))
        assert host.report("karmic")["remarks"] == []


@pytest.mark.parametrize("said", ["public = true", "share = []", "public = true\nshare = []"])
def test_openstack_shares_with_everybody_or_nobody(tmp_path: Path, said: str) -> None:
    with cloud_host(tmp_path, "openstack") as host:
        cloud = host.cloud
        drop(host, said)
        assert host.run("once").returncode == 0
        assert host.report("karmic")["remarks"] == []
        assert {seen.code for seen in cloud.calls("ModifyImageAttribute")} <= {""}


def test_sets_that_end_in_one_moment_tag_the_kernel_they_share_without_a_replay(tmp_path: Path) -> None:
    """On a 4.1 that is asked with V2, whose second signature of one second would be refused."""
    with cloud_host(tmp_path, "euca4") as host:
        sandbox = host.cloud
        drop(host)
        image_id = registered(host)
        account = gather(load(host.config, environ={}).clouds["default"])
        cloud = make_cloud(account, replace(EUCA4, ec2_signature="v2"), uploads=1)
        begun, together = len(sandbox.requests), threading.Barrier(3)

        def end(_: int) -> None:
            together.wait()
            tag(cloud, image_id, {"sha256": "another", "team": "infra"})

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(end, range(3)))
        assert [seen.message for seen in sandbox.requests[begun:] if seen.status != 200] == []
        assert dict(listed(cloud, image_id).tags).items() >= {"sha256": "another", "team": "infra"}.items()
