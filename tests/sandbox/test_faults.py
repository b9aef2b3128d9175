"""Faults: each as it looks from outside, and the way back."""

import hashlib
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from tests.support.cloud_keys import with_keys
from uecwatchd.cli.main import main
from uecwatchd.errors import Rejected
from uecwatchd.sandbox.faults import FAULTS, TIMES, Faults
from uecwatchd.sandbox.server import Sandbox

BUCKET = "images"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, make_clients: Any) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("faulty")) as running:
        make_clients(running).s3().create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture
def faulty(one: Sandbox) -> Iterator[Sandbox]:
    yield one
    one.faults.clear()


@pytest.fixture
def upload(faulty: Sandbox, make_clients: Any) -> Any:
    s3 = make_clients(faulty).s3()
    return lambda key, body=b"body": s3.put_object(Bucket=BUCKET, Key=key, Body=body)


def keys(cloud: Sandbox) -> set[str]:
    return {stored.key for stored in cloud.objects(BUCKET)}


# uploads


@pytest.mark.parametrize(
    ("name", "code", "status"), [("put-500", "InternalError", 500), ("put-503", "SlowDown", 503)]
)
def test_so_many_uploads_are_answered_with_an_error_and_not_kept(
    name: str, code: str, status: int, faulty: Sandbox, upload: Any, refusal: Any
) -> None:
    faulty.faults.arm(name, 2)
    for _ in range(2):
        assert refusal(upload, key=name)[::2] == (code, status)
    assert name not in keys(faulty)
    upload(name)
    assert name in keys(faulty)
    assert [seen.fault for seen in faulty.calls("PutObject")[-3:]] == [name, name, ""]
    assert faulty.refusals == ()


def test_an_upload_nobody_signed_uses_up_no_fault(faulty: Sandbox, hand: Any) -> None:
    faults = ("put-500", "put-503", "reset-in-body")
    for name in faults:
        faulty.faults.arm(name)
    assert hand(faulty).ask("PUT", f"/services/Walrus/{BUCKET}/unsigned", body=b"x").status == 403
    assert [faulty.faults.value(name) for name in faults] == [1, 1, 1]


def test_some_uploads_may_pass_before_the_one_that_fails(faulty: Sandbox, upload: Any, refusal: Any) -> None:
    faulty.faults.arm("put-503", spare=2)
    upload("first")
    upload("second")
    assert refusal(upload, key="third").status == 503
    upload("fourth")


def test_a_connection_is_reset_in_the_middle_of_a_body(faulty: Sandbox, upload: Any) -> None:
    faulty.faults.arm("reset-in-body")
    with pytest.raises(ConnectionClosedError):
        upload("reset", bytes(1 << 20))
    upload("after")
    assert keys(faulty) & {"reset", "after"} == {"after"}
    seen, _ = faulty.calls("PutObject")[-2:]
    assert (seen.status, seen.fault) == (0, "reset-in-body")


@pytest.mark.parametrize("body", [b"", b"x"], ids=["no byte", "one byte"])
def test_a_connection_is_reset_in_the_middle_of_hardly_a_body(
    body: bytes, faulty: Sandbox, upload: Any
) -> None:
    faulty.faults.arm("reset-in-body")
    with pytest.raises(ConnectionClosedError):
        upload("reset", body)
    seen = faulty.calls("PutObject")[-1]
    assert (seen.status, seen.code, seen.fault) == (0, "", "reset-in-body")


def test_an_etag_of_something_else_comes_back(faulty: Sandbox, upload: Any) -> None:
    right = f'"{hashlib.md5(b"body").hexdigest()}"'
    faulty.faults.arm("wrong-etag")
    wrong = upload("tagged")["ETag"]
    assert re.fullmatch('"[0-9a-f]{32}"', wrong)
    assert wrong != right
    assert upload("tagged")["ETag"] == right


def test_requests_that_are_no_uploads_are_left_alone(faulty: Sandbox, make_clients: Any) -> None:
    s3 = make_clients(faulty).s3()
    for name in ("put-500", "put-503", "reset-in-body", "wrong-etag", "lost-answer"):
        faulty.faults.arm(name)
    s3.create_bucket(Bucket="other")
    s3.list_objects(Bucket="other")
    s3.delete_bucket(Bucket="other")


# registration


def test_an_image_is_registered_and_its_answer_lost(
    tmp_path: Path, make_forge: Any, make_clients: Any, contents: Any
) -> None:
    with Sandbox(with_keys(tmp_path / "cloud"), faults=Faults({"lost-answer": 1})) as cloud:
        location = make_forge(cloud).bundle(contents["partition"])
        ec2 = make_clients(cloud).ec2()
        with pytest.raises(ConnectionClosedError):
            ec2.register_image(ImageLocation=location, Name="lost")
        assert [image.name for image in cloud.images] == ["lost"]
        (seen,) = cloud.calls("RegisterImage")
        assert (seen.status, seen.fault) == (200, "lost-answer")
        assert [image["Name"] for image in ec2.describe_images()["Images"]] == ["lost"]


def test_an_image_fails_after_it_was_registered(
    tmp_path: Path, make_forge: Any, make_clients: Any, contents: Any
) -> None:
    with Sandbox(with_keys(tmp_path / "cloud"), faults=Faults({"image-fails": 1})) as cloud:
        forge, ec2 = make_forge(cloud), make_clients(cloud).ec2()
        for name in ("bad", "good"):
            ec2.register_image(ImageLocation=forge.bundle(contents["partition"]), Name=name)
        looks = [{i["Name"]: i["State"] for i in ec2.describe_images()["Images"]} for _ in range(5)]
    assert looks[0]["bad"] == "pending"
    assert looks[-1] == {"bad": "failed", "good": "available"}


@pytest.mark.parametrize("looks", [5, 1e9, math.inf])
def test_an_image_may_be_pending_for_ever(
    looks: float, tmp_path: Path, make_forge: Any, make_clients: Any, contents: Any
) -> None:
    with Sandbox(with_keys(tmp_path / "cloud")) as cloud:
        cloud.faults.arm("pending", looks)
        ec2 = make_clients(cloud).ec2()
        ec2.register_image(ImageLocation=make_forge(cloud).bundle(contents["partition"]), Name="slow")
        states = [[i["State"] for i in ec2.describe_images()["Images"]] for _ in range(4)]
    assert states == [["pending"]] * 4


# the whole cloud


def test_a_cloud_that_is_down_answers_in_no_xml(faulty: Sandbox, hand: Any, upload: Any) -> None:
    faulty.faults.arm("down", 2)
    for path in ("/services/Walrus", "/services/Eucalyptus"):
        answer = hand(faulty).ask("GET", path)
        assert (answer.status, b"<" in answer.body) == (503, False)
    upload("up-again")


def test_a_cloud_that_is_away_resets_connections(faulty: Sandbox, hand: Any) -> None:
    faulty.faults.arm("away")
    for _ in range(3):
        with pytest.raises(ConnectionResetError) as caught:
            hand(faulty).ask("GET", "/")
        assert caught.type is ConnectionResetError  # and not that of a connection closed politely
    faulty.faults.clear()
    assert hand(faulty).ask("GET", "/").status == 200


def test_answers_can_be_slow(faulty: Sandbox, upload: Any) -> None:
    faulty.faults.arm("slow", 0.3)
    began = time.monotonic()
    upload("slow")
    assert 0.3 <= time.monotonic() - began < 5


class Telling(Faults):
    """Tells when a request asks how long it has to wait."""

    def __init__(self, armed: Mapping[str, float]) -> None:
        super().__init__(armed)
        self.asked = threading.Event()

    def value(self, name: str) -> float:
        if name == "slow":
            self.asked.set()
        return super().value(name)


def test_a_cloud_that_is_stopped_does_not_wait_for_slow_answers(tmp_path: Path, hand: Any) -> None:
    faults = Telling({"slow": 60})
    cloud = Sandbox(with_keys(tmp_path / "cloud"), faults=faults).start()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(hand(cloud).ask, "GET", "/")
        assert faults.asked.wait(5)
        assert not answer.done()
        began = time.monotonic()
        cloud.stop()
        assert time.monotonic() - began < 5
        assert answer.result().status == 200


@pytest.mark.parametrize("seconds", [1000, -1000])
def test_the_clock_can_be_wrong_either_way(seconds: int, faulty: Sandbox, upload: Any, refusal: Any) -> None:
    faulty.faults.arm("skew", seconds)
    assert refusal(upload, key="skewed").code == "RequestTimeTooSkewed"
    faulty.faults.clear()
    upload("skewed")


def test_a_connection_can_be_good_for_fewer_requests(faulty: Sandbox, hand: Any) -> None:
    faulty.faults.arm("requests", 1)
    assert hand(faulty).ask("GET", "/").headers["connection"] == "close"
    faulty.faults.clear()
    assert "connection" not in hand(faulty).ask("GET", "/").headers


# words


def test_faults_are_read_from_words() -> None:
    faults = Faults.parse(["put-503=2", "put-500=inf", "slow=0.5", "down", "wrong-etag", "skew=-1.5"])
    names = ("put-503", "put-500", "slow", "down", "wrong-etag", "skew", "requests")
    assert [faults.value(name) for name in names] == [2, math.inf, 0.5, math.inf, 1, -1.5, 0]


def test_the_command_refuses_a_word_before_it_starts_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cloud"
    assert main(["sandbox", "--dir", str(folder), "--fault", "slow", "--fault", "fire"]) == 65
    assert "fire: cannot make this go wrong" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("put-504", "there is no such fault"),
        ("", "there is no such fault"),
        ("put-503=two", "two is not a number"),
        ("slow=nan", "nan is no number of seconds to work with"),
        ("slow=inf", "inf is no number of seconds to work with"),
        ("slow=-1", "-1 is no number of seconds to work with"),
        ("skew=-1e10", "-1e10 is no number of seconds to work with"),
        ("put-503=-1", "-1 is no number of times to work with"),
        ("put-503=0", "0 is no number of times to work with"),
        ("put-500=0.5", "0.5 is no number of times to work with"),
        ("put-500=1.5", "1.5 is not a whole number"),
        ("requests=0.5", "0.5 is no number of requests to work with"),
        ("requests=inf", "inf is no number of requests to work with"),
        ("pending=2.5", "2.5 is not a whole number"),
    ],
)
def test_a_word_that_is_no_fault_is_refused_with_what_there_is(word: str, why: str) -> None:
    with pytest.raises(Rejected) as caught:
        Faults.parse([word])
    assert (caught.value.what, caught.value.why) == (f"{word}: cannot make this go wrong", why)
    assert caught.value.hint.endswith(".")


def test_a_fault_that_is_counted_strikes_so_often_over_all_requests() -> None:
    faults = Faults({"put-500": 50})
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: faults.strikes("put-500"), range(200))) == 50


def test_a_fault_strikes_no_fraction_of_a_time() -> None:
    faults = Faults({"put-500": 1.5})
    assert [faults.strikes("put-500") for _ in range(3)] == [True, False, False]
    assert 0 <= faults.value("put-500") < 1


def test_every_fault_has_a_value_that_makes_it_happen() -> None:
    for name, fault in FAULTS.items():
        assert Faults.parse([name]).value(name) == fault.value
        assert fault.value
        assert fault.unit == TIMES or not math.isinf(fault.value)
