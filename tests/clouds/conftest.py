"""One account with real keys, and its servers: three real S3 servers, and one that follows a script."""

import contextlib
import datetime
import functools
import getpass
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.support.waiting import until
from uecwatchd.clouds.client import Cloud, make_cloud
from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.dialects import DIALECTS

ACCESS_KEY, SECRET_KEY, ACCOUNT = "AKIDFORTESTS00000001", "secret/for+tests", "000100729354"

# The slowest of the servers needs about four seconds here; more means that it will not come.
START_SECONDS = 30

HALVES = {"ec2": "Eucalyptus", "s3": "Walrus"}


# --- keys -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeyPair:
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """The certificate's and the key's file."""
        cert, key = folder / f"{name}-cert.pem", folder / f"{name}-pk.pem"
        cert.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        return cert, key


def certified(key: Any, name: str) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2009, 10, 29, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = builder.add_extension(address, critical=False)
    builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=36500))
    return builder.sign(key, hashes.SHA256())


def make_pair(name: str) -> KeyPair:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return KeyPair(key, certified(key, name))


@pytest.fixture(name="certified", scope="session")
def certified_fixture() -> Callable[[Any, str], x509.Certificate]:
    """Makes a certificate for a key and a name, signed by itself."""
    return certified


@pytest.fixture(scope="session")
def user() -> KeyPair:
    return make_pair("user")


@pytest.fixture(scope="session")
def cloud_keys() -> KeyPair:
    return make_pair("cloud")


@pytest.fixture(scope="session")
def account(user: KeyPair, cloud_keys: KeyPair) -> Account:
    return Account(
        cloud="test",
        ec2_url="http://127.0.0.1:9/services/Eucalyptus",
        s3_url="http://127.0.0.1:9/services/Walrus",
        region=None,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        account=ACCOUNT,
        user_cert=user.certificate,
        user_key=user.key,
        cloud_cert=cloud_keys.certificate,
        ca_bundle=None,
    )


# --- a server that follows a script ------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: dict[str, str]
    sent: int  # bytes of the body that are sent before the connection is closed


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Script:
    """Answers requests one by one with prepared answers; keeps every request."""

    def __init__(self) -> None:
        self.replies: list[Reply | None] = []  # None: it closes the connection without a word
        self.requests: list[Request] = []
        self.turn = threading.Lock()
        self.url = ""

    def says(self, status: int = 200, body: str = "", *, sent: int | None = None, **headers: str) -> None:
        content = body.encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.replies.append(Reply(status, content, names, len(content) if sent is None else sent))

    def hangs_up(self) -> None:
        self.replies.append(None)

    def hears(self, request: Request) -> Reply | None:
        with self.turn:
            self.requests.append(request)
            return self.replies.pop(0) if self.replies else Reply(500, b"the script has ended", {}, 20)


def _handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {key.lower(): value for key, value in self.headers.items()}
            reply = script.hears(Request(self.command, self.path, headers, body))
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for key, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body[: reply.sent])
            self.close_connection = self.close_connection or reply.sent < len(reply.body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 (http.server's names)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture(scope="session")
def script_server() -> Iterator[Script]:
    script = Script()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(script)) as server:
        server.daemon_threads = True
        script.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield script
        server.shutdown()
        thread.join()


@pytest.fixture
def script(script_server: Script) -> Script:
    """The server, with nothing to say yet."""
    script_server.replies.clear()
    script_server.requests.clear()
    return script_server


@pytest.fixture(scope="session")
def clients(script_server: Script, account: Account) -> Callable[[str], Cloud]:
    """One client of the script for each dialect, at the paths of a Eucalyptus; making one takes 0.3 s."""
    urls = {f"{half}_url": f"{script_server.url}/services/{name}" for half, name in HALVES.items()}
    return functools.cache(lambda dialect: make_cloud(replace(account, **urls), DIALECTS[dialect], uploads=4))


@pytest.fixture
def scripted(script: Script, clients: Callable[[str], Cloud]) -> Callable[[str], Cloud]:
    def fresh(dialect: str) -> Cloud:
        return replace(clients(dialect), without_acl=set())

    return fresh


@pytest.fixture
def cloud(scripted: Callable[[str], Cloud]) -> Cloud:
    """A cloud of the first generation, which follows the script."""
    return scripted("uec")


# --- real S3 servers ---------------------------------------------------------------------------------------


def program(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is missing: pip install '.[test]'"
    return found


def free_port(below: int = 65536) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < below:
            return port


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    def listens() -> bool:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listens, "the server", patience=START_SECONDS)


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environ = os.environ | {
        "TMPDIR": str(folder)
    }  # for what one of them leaves lying about when it is killed
    with (folder / "server.log").open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            process.kill()  # what it holds is thrown away: a graceful end takes one of them 25 s
            process.wait(START_SECONDS)


@contextlib.contextmanager
def serving(command: list[str], port: int, folder: Path) -> Iterator[str]:
    with running(command, folder) as process:
        wait_for_port(process, port)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory, account: Account) -> Iterator[Account]:
    folder, port = tmp_path_factory.mktemp("rclone"), free_port()
    address = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    (folder / "store").mkdir()
    command = [program("rclone"), "serve", "s3", *address, "--config", "/dev/null", str(folder / "store")]
    with serving(command, port, folder) as url:
        yield replace(account, s3_url=url)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory, account: Account) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("weed")
    # One volume for a bucket instead of seven, because there is no space for seven.
    (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identity = {"name": "user", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    # Its gRPC ports are 10000 above the others.
    master, volume, filer, s3 = (free_port(below=55536) for _ in range(4))
    sockets = [f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock"]
    ports = [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}"]
    rest = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=128", "-volume.max=200"]
    options = ["-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.config=identities.json"]
    command = [program("weed"), "server", *options, *ports, *sockets, *rest, "-master.telemetry=false"]
    with serving(command, s3, folder) as url:
        yield replace(account, s3_url=url)
    for port in (master, volume, filer, s3):  # killed, it leaves some sockets behind, always there
        for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port + 10_000}.sock"):  # noqa: S108
            left.unlink()


# --- OpenStack's object store: four servers, run by the Python that Debian's python3-swift is for ----------

SYSTEM_PYTHON = "/usr/bin/python3"
SWIFT_SERVER = """
import sys
from swift.common.utils import set_swift_dir
from swift.common.wsgi import run_wsgi
folder, kind = sys.argv[1:]
set_swift_dir(folder)
sys.exit(run_wsgi(f"{folder}/{kind}.conf", f"{kind}-server", verbose=True))
"""

# Each kind of thing is in one place only: on the one device of the one server that keeps such things.
SWIFT_RINGS = """
import sys
from swift.common.ring import RingBuilder
for place in sys.argv[1:]:
    kind, port = place.split("=")
    device = {"region": 1, "zone": 1, "device": "disk", "weight": 1, "meta": ""}
    device.update(ip="127.0.0.1", port=int(port), replication_ip="127.0.0.1", replication_port=int(port))
    rings = RingBuilder(part_power=4, replicas=1, min_part_hours=1)
    rings.add_dev(device)
    rings.rebalance()
    rings.get_ring().save(kind + ".ring.gz")
"""

# Patient, for the tests may have half a processor. S3 wants to be given a cache: one that never answers.
SWIFT_CONFIGURATION = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
[pipeline:main]
pipeline = {pipeline}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 20
node_timeout = 20
[app:account-server]
use = egg:swift#account
[app:container-server]
use = egg:swift#container
conn_timeout = 20
node_timeout = 20
[app:object-server]
use = egg:swift#mem_object
conn_timeout = 20
node_timeout = 20
container_update_timeout = 20
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{nobody}
[filter:s3api]
use = egg:swift#s3api
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin
"""
SWIFT_HASHING = """
[swift-hash]
swift_hash_path_prefix = one
swift_hash_path_suffix = other
[storage-policy:0]
name = only
default = yes
"""
SWIFT_S3 = "catch_errors gatekeeper cache s3api tempauth proxy-server"


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory, account: Account) -> Iterator[Account]:
    found = subprocess.run([SYSTEM_PYTHON, "-c", "import swift"], capture_output=True, check=False)
    assert not found.returncode, "Swift is missing: apt-get install python3-swift"
    folder, user = tmp_path_factory.mktemp("swift"), getpass.getuser()
    ports = {kind: free_port() for kind in ("account", "container", "object", "proxy")}
    (folder / "devices" / "disk").mkdir(parents=True)
    (folder / "swift.conf").write_text(SWIFT_HASHING)
    rings = [f"{kind}={port}" for kind, port in ports.items() if kind != "proxy"]
    subprocess.run([SYSTEM_PYTHON, "-c", SWIFT_RINGS, *rings], cwd=folder, check=True)
    values = {
        "folder": folder,
        "user": user,
        "account": ACCESS_KEY,
        "secret": SECRET_KEY,
        "nobody": free_port(),
    }
    with contextlib.ExitStack() as servers:
        processes = {}
        for kind, port in ports.items():
            pipeline = SWIFT_S3 if kind == "proxy" else f"{kind}-server"
            configuration = SWIFT_CONFIGURATION.format(port=port, pipeline=pipeline, **values)
            (folder / f"{kind}.conf").write_text(configuration)
            command = [SYSTEM_PYTHON, "-c", SWIFT_SERVER, str(folder), kind]
            processes[kind] = servers.enter_context(running(command, folder))
        for kind, port in ports.items():
            wait_for_port(processes[kind], port)
        url = f"http://127.0.0.1:{ports['proxy']}"
        yield replace(account, s3_url=url, access_key=f"{ACCESS_KEY}:{user}")
