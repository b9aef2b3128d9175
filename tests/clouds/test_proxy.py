"""The proxy to a cloud, and messages about one that does not let us through."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.host import Host
from tests.support.listener import Recorder
from uecwatchd.clouds.client import make_cloud
from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.dialects import UEC
from uecwatchd.clouds.images import list_images
from uecwatchd.clouds.proxy import check_proxy, name_proxy, proxies_for
from uecwatchd.config.load import load
from uecwatchd.errors import CloudAway, Halted, UecError
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.service.daemon import Service

PROXY = {"http_proxy": "http://10.9.9.9:3128", "https_proxy": "http://10.9.9.9:3128"}
NAME, ADDRESS, IPV6 = "http://Cloud.Example.:8773/x", "http://10.1.2.3:8773/x", "http://[2001:db8::5]:8773/x"

DIRECT = [
    (NAME, "*"),
    (NAME, "cloud.example"),
    (NAME, "CLOUD.example."),
    (NAME, ".example"),
    (NAME, "example"),
    (NAME, "..cloud.example"),
    (NAME, "a, b ,cloud.example"),
    (NAME, "a b cloud.example c"),
    (NAME, "cloud.example:8773"),
    (NAME, "*:8773"),
    (ADDRESS, "10.0.0.0/8"),
    (ADDRESS, "10.1.2.3"),
    (ADDRESS, "10.1.2.3/32"),
    (ADDRESS, "10.1.2.9/24"),
    (ADDRESS, "localhost,127.0.0.1,10.1.2.3:8773"),
    (ADDRESS, "0.0.0.0/0"),
    (IPV6, "2001:db8::/32"),
    (IPV6, "[2001:db8::5]"),
    (IPV6, "2001:DB8:0::5"),
    (IPV6, "[2001:db8::]/64"),
    (IPV6, "[2001:db8::5]:8773"),
    ("http://127.0.0.1:1/", ""),
    ("http://localhost:1/", ""),
    ("http://[::1]:1/", ""),
]
PROXIED = [
    (NAME, ""),
    (NAME, "notcloud.example"),
    (NAME, "loud.example"),
    (NAME, "cloud.example.org"),
    (NAME, "*.example"),
    (NAME, "cloud.example:80"),
    (NAME, "10.0.0.0/8"),
    (NAME, "."),
    (ADDRESS, "11.0.0.0/8"),
    (ADDRESS, "10.1.2"),
    (ADDRESS, "3"),
    (ADDRESS, "10.1.2.3/33"),
    (ADDRESS, "10.1.2.3:80"),
    (ADDRESS, "2001:db8::/32"),
    (IPV6, "10.0.0.0/8"),
    (IPV6, "2001:db9::/32"),
]


@pytest.mark.parametrize(("url", "no_proxy"), DIRECT)
def test_no_proxy_exempts_what_curl_exempts(url: str, no_proxy: str) -> None:
    assert proxies_for(url, {**PROXY, "no_proxy": no_proxy}) == {}
    assert proxies_for(url, {**PROXY, "NO_PROXY": no_proxy}) == {}


@pytest.mark.parametrize(("url", "no_proxy"), PROXIED)
def test_no_proxy_exempts_no_other_hosts(url: str, no_proxy: str) -> None:
    assert proxies_for(url, {**PROXY, "no_proxy": no_proxy}) == {"http": PROXY["http_proxy"]}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        ({"http_proxy": "gate:3128"}, {"http": "http://gate:3128"}),
        ({"HTTP_PROXY": "http://gate:3128"}, {"http": "http://gate:3128"}),
        ({"http_proxy": "", "HTTP_PROXY": "http://gate"}, {"http": "http://gate"}),
        ({"https_proxy": "http://gate:3128"}, {}),
        ({"all_proxy": "socks5://gate"}, {}),
    ],
)
def test_the_proxy_is_the_one_for_the_addresss_scheme(
    environ: dict[str, str], expected: dict[str, str]
) -> None:
    assert proxies_for(NAME, environ) == expected


@pytest.mark.parametrize(
    "proxy", ["socks5://gate:1080", "socks5h://u:s3cret@gate", "http://", "http://a b", "http://[::1"]
)
def test_a_proxy_that_cannot_be_used_halts_and_is_named(proxy: str) -> None:
    with pytest.raises(Halted, match=r"only HTTP proxies can be used \(http_proxy in this") as caught:
        check_proxy("default", NAME, {"http_proxy": proxy})
    assert "s3cret" not in str(caught.value)
    check_proxy("default", NAME, {"http_proxy": proxy, "no_proxy": "cloud.example"})


@pytest.mark.parametrize(
    ("secret", "escaped"),
    [
        pytest.param("top@hat", "'@' in it, which is written %40", id="at"),
        pytest.param("top#hat", "'#' in it, which is written %23", id="number sign"),
        pytest.param("top/hat", "'/' in it, which is written %2F", id="slash"),
        pytest.param("top?hat", "'?' in it, which is written %3F", id="question mark"),
        pytest.param("top@h#t/", "'@' in it, which is written %40", id="several"),
        pytest.param("top%hat", "'%' in it, which is written %25", id="percent"),
        pytest.param("t\u00f6p hat", "'\u00f6' in it, which is written %C3%B6", id="another script"),
    ],
)
def test_a_proxys_password_that_is_not_written_as_in_urls_is_reported_and_not_shown(
    secret: str, escaped: str
) -> None:
    environ = {"http_proxy": f"http://worker:{secret}@10.9.9.9:3128"}
    with pytest.raises(Halted, match="cannot use the proxy") as caught:
        check_proxy("lab", NAME, environ)
    assert caught.value.what.endswith("http://***@10.9.9.9:3128")
    assert escaped in caught.value.why
    assert all(piece not in str(caught.value) for piece in ("worker", "hat", secret))


@pytest.mark.parametrize("secret", ["top%40hat", "a.b_c~d!$&'()*+,;=:-", "%C3%B6", ""])
def test_the_password_of_a_proxy_may_have_any_encoded_characters(secret: str) -> None:
    check_proxy("lab", NAME, {"http_proxy": f"http://worker:{secret}@10.9.9.9:3128"})


def test_a_proxys_password_is_not_reported() -> None:
    assert name_proxy(NAME, {"http_proxy": "http://p:p@gate:3128"}) == "http://***@gate:3128"


# --- proxies that answer themselves ------------------------------------------------------------------------


@contextmanager
def proxy(status: int, body: str = "", **headers: str) -> Iterator[str]:
    """A proxy that lets nobody through; its address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = do_HEAD = do_CONNECT = answer  # noqa: N815 (http.server's names)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


BLOCKED = "<html><head><title>Blocked</title></head></html>"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(407, "", Halted), (403, BLOCKED, Halted), (503, BLOCKED, CloudAway), (502, BLOCKED, CloudAway)],
)
def test_a_proxy_that_refuses_is_named(
    scheme: str,
    status: int,
    body: str,
    kind: type[UecError],
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with proxy(status, body, Proxy_Authenticate="Basic") as url:
        monkeypatch.setenv(f"{scheme}_proxy", url.replace("//", "//u:p@"))
        cloud = make_cloud(replace(account, ec2_url=f"{scheme}://cloud.example/x"), UEC, uploads=1)
        with pytest.raises(kind) as caught:
            list_images(cloud)
    assert type(caught.value) is kind
    assert url.removeprefix("http://") in caught.value.why
    assert str(status) in caught.value.why
    assert "no_proxy" in caught.value.hint
    assert "u:p@" not in str(caught.value)


def test_a_proxy_that_is_away_is_named(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    cloud = make_cloud(replace(account, ec2_url="http://cloud.example/x"), UEC, uploads=1)
    with pytest.raises(
        CloudAway, match=r"the proxy on the way to it does not answer \(127\.0\.0\.1:1: .*refused"
    ):
        list_images(cloud)


@pytest.mark.parametrize(
    ("status", "body"), [(407, ""), (403, BLOCKED), (503, BLOCKED), (400, "no"), (302, "")]
)
def test_sets_continue_after_a_proxy_is_repaired(
    status: int,
    body: str,
    host: Host,
    listener: Recorder,
    embedded_cloud: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eucarc = embedded_cloud.folder / "eucarc-behind"
    eucarc.write_text(
        embedded_cloud.eucarc.read_text().replace(f"127.0.0.1:{embedded_cloud.port}", "cloud.example")
    )
    text = host.config.read_text().replace(str(embedded_cloud.eucarc), str(eucarc))
    host.configure("\n".join(line for line in text.splitlines() if not line.startswith("dialect")))
    (host.spool / "a.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    (host.spool / "a.img").write_bytes(b"a" * 4096)
    with proxy(status, body, Location="http://login.example/") as url:
        monkeypatch.setenv("http_proxy", url)
        for _ in range(2):
            assert "rejected" not in once(host, listener)
    monkeypatch.setenv("http_proxy", embedded_cloud.url)  # it answers whatever host is asked for
    assert once(host, listener) == ["done"]


def once(host: Host, listener: Recorder) -> list[str]:
    """A run of the service; the states of the sets."""
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        return [record.state for record in Service(settings, listener=listener, ledger=book).once()]
