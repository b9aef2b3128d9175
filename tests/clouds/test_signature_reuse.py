"""A signature is sent once: with a clock and a sleep of our own."""

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.hooks import HierarchicalEmitter

from tests.support.clock import Clock
from uecwatchd.clouds.signature_reuse import REMEMBERED_SECONDS, UniqueSignatures

# What dates a signature is a little behind the clock that everybody else reads.
TIMER_SECONDS = 0.01


@dataclass
class Request:
    """As botocore has it: what is to be signed, and a place for its handlers' notes."""

    text: str
    in_form: bool = False
    data: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def signature(self) -> str:
        return self.data.get("Signature") or self.headers["Authorization"]


class Client:
    """Sends requests as botocore does; its signatures hold the time in whole seconds."""

    def __init__(self, clock: Clock, once: UniqueSignatures, *, reads: bool = True) -> None:
        self.clock = clock
        self.events = HierarchicalEmitter()
        self.events.register("request-created.s3", self.handler)
        once.listen(self.events, reads=reads)

    def handler(self, *, request: Request, operation_name: str, **_: object) -> None:
        self.sign(operation_name, request)

    def sign(self, operation_name: str, request: Request) -> None:
        self.events.emit(f"before-sign.s3.{operation_name}", request=request, request_signer=self)
        made = f"{request.text} at {int(self.clock.now - TIMER_SECONDS)}"
        if request.in_form:
            request.data["Signature"] = made
        else:
            request.headers["Authorization"] = made

    def send(self, request: Request, operation: str = "Ask") -> str:
        self.events.emit(f"request-created.s3.{operation}", request=request, operation_name=operation)
        return request.signature


def client_of(clock: Clock) -> Client:
    return Client(clock, UniqueSignatures(clock=clock, sleep=clock.sleep))


@pytest.mark.parametrize("in_form", [False, True], ids=["S3", "EC2"])
def test_a_repeated_request_waits_for_the_next_second(in_form: bool) -> None:  # noqa: FBT001 (a table)
    clock = Clock(100.25)
    client = client_of(clock)
    signed = [client.send(Request("GET /", in_form)) for _ in range(3)]
    assert signed == ["GET / at 100", "GET / at 101", "GET / at 102"]
    assert clock.slept == pytest.approx(0.77 + 1.0, abs=0.05)


@pytest.mark.parametrize(
    ("operation", "waits"),
    [
        *(("CreateTags", True), ("RegisterImage", True), ("ModifyImageAttribute", True), ("PutObject", True)),
        *(("DescribeTags", False), ("ListObjects", False), ("HeadBucket", False), ("GetObject", False)),
    ],
)
def test_only_changes_wait_if_the_cloud_accepts_replays(operation: str, waits: bool) -> None:  # noqa: FBT001
    clock = Clock(100.25)
    client = Client(clock, UniqueSignatures(clock=clock, sleep=clock.sleep), reads=False)
    first, second = (client.send(Request("a"), operation) for _ in range(2))
    assert (first != second) is waits
    assert bool(clock.slept) is waits


def test_a_request_that_another_client_has_sent_waits_for_the_next_second() -> None:
    clock = Clock(100.25)
    once = UniqueSignatures(clock=clock, sleep=clock.sleep)
    signed = [Client(clock, once).send(Request("GET /")) for _ in range(2)]
    assert signed == ["GET / at 100", "GET / at 101"]


def test_different_requests_wait_for_nothing() -> None:
    clock = Clock(100.0)
    client = client_of(clock)
    for name in ("a", "b", "c"):
        client.send(Request(name))
    assert clock.slept == 0


def test_the_same_request_in_another_second_waits_for_nothing() -> None:
    clock = Clock(100.0)
    client = client_of(clock)
    client.send(Request("a"))
    clock.now = 101.0
    client.send(Request("a"))
    assert clock.slept == 0


def test_a_clock_that_is_set_back_is_noticed() -> None:
    clock = Clock(100.5)
    client = client_of(clock)
    client.send(Request("a"))
    clock.now = 103.5
    client.send(Request("a"))
    clock.now = 100.5
    assert client.send(Request("a")) == "a at 101"


def test_old_signatures_are_forgotten() -> None:
    clock = Clock(100.0)
    once = UniqueSignatures(clock=clock)
    assert once.is_new("a")
    clock.now += REMEMBERED_SECONDS - 1
    assert not once.is_new("a")
    clock.now += 1
    assert once.is_new("a")


def test_threads_are_distinguished() -> None:
    once, found = UniqueSignatures(clock=lambda: 100.0), list[bool]()
    threads = [threading.Thread(target=lambda: found.append(once.is_new("a"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(True) == 1
