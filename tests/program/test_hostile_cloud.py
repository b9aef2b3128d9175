"""The real program against a cloud that goes wrong at a chosen moment: it still hears a stop soon."""

import contextlib
import http.client
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.host import Host
from tests.support.program_runs import Run
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.demo.material import RealSet

DRIP_SECONDS = 0.1
# After the cloud has begun to go wrong.
MOMENT_SECONDS = 1.0
EX_TEMPFAIL = 75
PASSED_ON = ("content-type", "etag", "server", "date", "x-amz-request-id")
MOMENTS = random.Random(11)  # noqa: S311 (only not to be regular)


@dataclass
class Front:
    """Proxy in front of the embedded cloud. Each request that `wrong` picks is treated as `act` does."""

    server: ThreadingHTTPServer
    wrong: Callable[[str], bool] = lambda _action: False
    act: Callable[["Front", Any], None] = lambda _front, _handler: None
    met: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    seen: list[str] = field(default_factory=list)
    forge: Callable[[str, bytes], bytes] = lambda _action, content: content

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


def action_of(method: str, path: str, body: bytes) -> str:
    """Such as "RegisterImage" of EC2, or "PUT bucket/key" of S3."""
    if b"Action=" in body:
        return parse_qs(body.decode())["Action"][0]
    parts = urlsplit(path)
    return f"{method} {parts.path.partition('/services/Walrus/')[2]}?{parts.query}".rstrip("?")


def handler_of(front: Callable[[], Front], port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length < 100_000 or not front().wrong("PUT") else b""
            action = action_of(self.command, self.path, body)
            front().seen.append(action)
            if front().wrong(action):
                front().met.set()
                self.close_connection = True
                with contextlib.suppress(OSError):
                    front().act(front(), self)
                return
            self._pass_on(action, body)

        def _pass_on(self, action: str, body: bytes) -> None:
            cloud = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            with contextlib.closing(cloud):
                cloud.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    cloud.putheader(name, value)
                cloud.endheaders(body)
                reply = cloud.getresponse()
                content = front().forge(action, reply.read())
            self.send_response_only(reply.status)
            for name, value in reply.getheaders():
                if name.lower() in PASSED_ON:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 (http.server's names)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def front(host: Host) -> Iterator[Front]:
    """A front of the host's cloud, which the host asks in its stead."""
    port = urlsplit(host.cloud.ec2_url).port or 0
    made: list[Front] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(lambda: made[0], port)) as server:
        server.daemon_threads = True
        made.append(Front(server))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        lines = [
            f'{half}_url = "{made[0].url}{urlsplit(url).path}"'
            for half, url in (("ec2", host.cloud.ec2_url), ("s3", host.cloud.s3_url))
        ]
        host.configure("\n".join([host.config.read_text(), *lines, ""]))
        yield made[0]
        made[0].over.set()
        server.shutdown()
        thread.join()


def says_nothing(front: Front, _handler: Any) -> None:
    front.over.wait(PATIENCE_SECONDS)


def drips_its_head(front: Front, handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not front.over.wait(DRIP_SECONDS):
        handler.wfile.write(b"X")


def drips_its_body(front: Front, handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n")
    while not front.over.wait(DRIP_SECONDS):
        handler.wfile.write(b"<")


def reads_a_byte_at_a_time(front: Front, handler: Any) -> None:
    while not front.over.wait(DRIP_SECONDS):
        handler.rfile.read(1)


def ended(process: Run) -> str:
    """Wait for the end of a program after a stop; return what it said."""
    _, talk = process.communicate(timeout=PATIENCE_SECONDS)
    assert "Traceback" not in talk
    return talk


@dataclass(frozen=True)
class Wrong:
    picks: Callable[[str], bool]
    act: Callable[[Front, Any], None]
    dialect: str = "sandbox"


WRONG = {
    "finding out its generation": Wrong(lambda action: action.startswith("GET"), says_nothing, "auto"),
    "looking for the bucket": Wrong(lambda action: "uec-images" in action, drips_its_head),
    "listing images": Wrong(lambda action: action == "DescribeImages", drips_its_body),
    "uploading": Wrong(lambda action: action.startswith("PUT"), reads_a_byte_at_a_time),
    "registering": Wrong(lambda action: action == "RegisterImage", says_nothing),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_stop_is_heard_whatever_the_cloud_does(
    wrong: Wrong, host: Host, front: Front, small_set: RealSet
) -> None:
    host.configure(host.config.read_text().replace('dialect = "sandbox"', f'dialect = "{wrong.dialect}"'))
    front.wrong, front.act = wrong.picks, wrong.act
    host.drop_set(small_set)
    process = host.start("run")
    try:
        assert front.met.wait(PATIENCE_SECONDS)
        time.sleep(MOMENTS.uniform(0, MOMENT_SECONDS))
        process.send_signal(signal.SIGTERM)
        asked = len(front.seen)
        talk = ended(process)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, talk
    # A program that does not hear the stop waits for the time-out of the read, reports it and asks again.
    assert "did not answer" not in talk
    assert front.seen[asked:] == []
    if wrong.dialect == "sandbox":
        assert host.report("karmic")["state"] == "queued"


def test_a_verb_that_is_stopped_does_not_wait_for_the_cloud(host: Host, front: Front) -> None:
    front.wrong, front.act = lambda _action: True, drips_its_body
    (host.spool / "karmic.toml").write_text("")
    verbs = {verb: host.start(*verb.split()) for verb in ("check", "images", "images --all")}
    try:
        until(lambda: len(front.seen) >= len(verbs), "each verb's question")
        for process in verbs.values():
            process.send_signal(signal.SIGINT)
        asked = len(front.seen)
        for process in verbs.values():
            ended(process)
        assert front.seen[asked:] == []
    finally:
        for process in verbs.values():
            process.kill()
            process.wait()
    assert {process.returncode for process in verbs.values()} == {EX_TEMPFAIL}


FORGED = ("-x $(touch /tmp/x)", "emi-12345678\nemi-12345679")


@pytest.mark.parametrize("forged", FORGED)
def test_no_false_id_is_written_and_none_is_asked_for_twice(
    forged: str, host: Host, front: Front, small_set: RealSet
) -> None:
    actions = ("RegisterImage", "DescribeImages")
    host.drop(small_set.kernel, names=["karmic.vmlinuz"])
    (host.spool / "karmic.toml").write_text('kernel = "karmic.vmlinuz"\n')

    def forge(action: str, content: bytes) -> bytes:
        return (
            re.sub(rb"(<imageId>)[^<]*", rb"\1" + forged.encode(), content) if action in actions else content
        )

    front.forge = forge
    for _ in range(2):
        host.run("once")
        host.run("retry", "karmic")
    assert front.seen.count("RegisterImage") == 1
    assert host.report("karmic")["state"] == "halted"
    assert [name for name in host.outputs() if "uec" not in name] == []
    front.forge = lambda _action, content: content
    host.run("retry", "karmic")
    ended = host.run("once")
    assert host.report("karmic")["state"] == "done", ended.stderr
    assert front.seen.count("RegisterImage") == 1
    assert (host.spool / "karmic.eki").read_text().strip() == host.cloud.images[0].id


def test_an_id_that_got_lost_on_its_way_is_found_in_the_list(
    host: Host, front: Front, small_set: RealSet
) -> None:
    front.forge = lambda action, content: (
        content.replace(b"<imageId>e", b"<imageId>-e") if action == "RegisterImage" else content
    )
    host.drop_set(small_set)
    ended = host.run("once")
    assert ended.returncode == 0, ended.stderr
    ids = {(host.spool / f"karmic.{role}").read_text().strip() for role in ("eki", "eri", "emi")}
    assert ids == {image.id for image in host.cloud.images}
    assert front.seen.count("RegisterImage") == 3
