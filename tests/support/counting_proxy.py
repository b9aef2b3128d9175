"""A proxy before an embedded cloud that counts what is asked at once, and can hold requests back.

Hosts reach their cloud by its address, or by an address of its own in their configuration and this one in
`http_proxy`: then each has a way of its own to the same cloud.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.host import Host
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.sandbox.server import Sandbox

PUT, REGISTER, OTHER = "PutObject", "RegisterImage", "other"
HOP_BY_HOP = frozenset({"connection", "transfer-encoding"})


class CountingProxy:
    """Counts of the requests for each action: under way, the most at once, all."""

    def __init__(self, cloud: Sandbox) -> None:
        self.cloud = cloud
        self.url = ""
        self.is_cut = False  # connections are dropped without an answer
        self.most: Counter[str] = Counter()
        self.all: Counter[str] = Counter()
        self.paths: list[str] = []  # of uploads, as they begin
        self._changed = threading.Condition()
        self._under_way: Counter[str] = Counter()
        self._passes: dict[str, int] = {}  # of the held actions, how many may pass

    def hold(self, action: str) -> None:
        with self._changed:
            self._passes[action] = 0

    def let(self, action: str, number: int = 1) -> None:
        """Let so many requests pass that are held back, now or later."""
        with self._changed:
            self._passes[action] += number
            self._changed.notify_all()

    def let_all(self, action: str) -> None:
        with self._changed:
            self._passes.pop(action, None)
            self._changed.notify_all()

    def await_under_way(self, action: str, number: int) -> None:
        until(
            lambda: self._under_way[action] == number, f"{number} of {action}", detail=lambda: str(self.all)
        )

    @contextmanager
    def passing(self, action: str, path: str) -> Iterator[None]:
        with self._changed:
            if action == PUT:
                self.paths.append(path)
            self.all[action] += 1
            self._under_way[action] += 1
            self.most[action] = max(self.most[action], self._under_way[action])
            assert self._changed.wait_for(lambda: self._passes.get(action, 1) > 0, PATIENCE_SECONDS)
            if action in self._passes:
                self._passes[action] -= 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way[action] -= 1

    def configure(self, host: Host) -> None:
        """Let a host reach its cloud by the address of this proxy."""
        self._set_address(host, self.url)

    def configure_as_proxy(self, host: Host) -> dict[str, str]:
        """Give a host an address of its cloud that only a proxy can reach; return its environment."""
        self._set_address(host, f"http://cloud.test:{self.cloud.port}")
        return {"http_proxy": self.url}

    def _set_address(self, host: Host, address: str) -> None:
        urls = (url.replace(self.cloud.url, address) for url in (self.cloud.ec2_url, self.cloud.s3_url))
        table = '[cloud.default]\nec2_url = "{}"\ns3_url = "{}"'.format(*urls)
        host.configure(host.config.read_text().replace("[cloud.default]", table))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    counts: CountingProxy

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_registration = b"RegisterImage" in body and b"DeregisterImage" not in body
        is_upload = self.command == "PUT" and (".part." in self.path or ".manifest." in self.path)
        action = PUT if is_upload else REGISTER if is_registration else OTHER
        with self.counts.passing(action, self.path):
            if self.counts.is_cut:
                self.close_connection = True
                return
            with closing(HTTPConnection("127.0.0.1", self.counts.cloud.port)) as cloud:
                path = re.sub("^http://[^/]*", "", self.path)
                cloud.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    cloud.putheader(name, value)
                cloud.endheaders(body)
                answer = cloud.getresponse()
                content = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in answer.getheaders()}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815 (their names there)


@contextmanager
def counting_proxy(cloud: Sandbox) -> Iterator[CountingProxy]:
    counts = CountingProxy(cloud)
    handler = type("Handler", (_Handler,), {"counts": counts})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    counts.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield counts
    finally:
        for action in (PUT, REGISTER, OTHER):
            counts.let_all(action)
        server.shutdown()
        server.server_close()
        thread.join()
