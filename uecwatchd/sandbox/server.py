"""The cloud as one object: both halves behind one port, over one folder."""

import fcntl
import shutil
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Self

from uecwatchd.errors import Deferred, Halted, NotPermitted
from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.faults import Faults
from uecwatchd.sandbox.http.connection import ConnectionSettings, HttpServer
from uecwatchd.sandbox.http.replay import ReplayCache
from uecwatchd.sandbox.router import RecordedRequest, Router
from uecwatchd.sandbox.rules.generations import RULES
from uecwatchd.sandbox.state.identity import EUCARC, Identity, ensure_dialect, ensure_identity, write_eucarc
from uecwatchd.sandbox.state.instances import Instance
from uecwatchd.sandbox.state.machines import PROGRAM, Machines
from uecwatchd.sandbox.state.parameters import ParameterStore
from uecwatchd.sandbox.state.registry import RegisteredImage, Registry
from uecwatchd.sandbox.state.store import Bucket, S3Object, Store

HOST = "127.0.0.1"  # never another: the cloud is for users of this machine who can read its folder
LOCK = "lock"
SOMEBODY_ELSE = "000000000000"  # an account that is never this cloud's
SEEN_LIMIT = (
    100_000  # requests remembered, about 30 MB: more than a test makes, bounded for a cloud left running
)

PAGE = """\
<!doctype html><title>uecwatchd sandbox</title>
<h1>A test cloud</h1>
<p>This is the embedded cloud of uecwatchd: S3 and EC2 for trying out image sets, on this machine only.
It checks bundles as strictly as real clouds do, and boots {boots}.
<ul>
<li>EC2: <code>{ec2_url}</code>
<li>S3: <code>{s3_url}</code>
<li>Credentials: <code>{eucarc}</code>
<li>{buckets} buckets, {images} images, {instances} instances
</ul>
"""


def _now() -> datetime:
    return datetime.now(UTC)


class Sandbox:
    """A cloud over a folder, which is made if it does not exist. `with` starts and stops it.

    Once stopped it can be started again, and listens on the same port. On start it raises `Deferred` if
    another one runs over the folder, and `Halted` if the port is taken or the folder belongs to another
    dialect or to no cloud.

    Tests of any project may embed it. `requests`, `refusals`, `calls`, `images`, `objects`, `backend` and
    `grant_bucket_to_other` are for them: what the cloud was asked, what it holds, and what it must refuse.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        dialect: str = "sandbox",
        administrator: bool = True,
        faults: Faults | None = None,
        boot: bool = False,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """Prepare a cloud; it listens once it is started.

        `port` 0: any free port. `dialect` is a key of `rules.generations.RULES`. `administrator` lets the
        one user do what only administrators may. `faults` may be changed while the cloud runs. With `boot`,
        instances are machines under QEMU, otherwise they only seem to run.
        """
        self.folder = folder
        self.port = port
        self.faults = faults or Faults()
        self._administrator = administrator
        self._boot = boot
        self._dialect = dialect
        self._rules = RULES[dialect]
        self._true_clock = clock
        self._seen: deque[RecordedRequest] = deque(maxlen=SEEN_LIMIT)
        self._backend: Backend | None = None
        self._running = ExitStack()

    # life

    def start(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(_lock_folder(self.folder))
            identity = ensure_identity(self.folder, now=self._clock())
            ensure_dialect(self.folder, self._dialect)
            store = stack.enter_context(closing(Store(self.folder)))
            registry = stack.enter_context(closing(Registry(self.folder)))
            machines = stack.enter_context(closing(_machines(self.folder))) if self._boot else None
            parameters = stack.enter_context(closing(ParameterStore(self.folder)))
            self._backend = Backend(
                identity,
                self._rules,
                store,
                registry,
                parameters,
                self._clock,
                faults=self.faults,
                administrator=self._administrator,
                machines=machines,
            )
            ended = threading.Event()
            server = self._serve(self._backend, pause=ended.wait)
            write_eucarc(
                self.folder,
                identity,
                template=self._rules.eucarc,
                url=self.url,
                ec2_url=self.ec2_url,
                s3_url=self.s3_url,
            )
            server.start()
            stack.callback(server.stop)
            stack.callback(ended.set)
            self._running = stack.pop_all()
        return self

    def _serve(self, backend: Backend, *, pause: Callable[[float], object]) -> HttpServer:
        """Listen on the port from now on."""
        router = Router(backend, ReplayCache(), self._page, self._seen.append, pause)
        settings = ConnectionSettings(self._requests, self._rules.http.announced, self._clock)
        with _listen(self.port) as listener:
            self.port = listener.getsockname()[1]
            return HttpServer(
                listener, router.answer, record_rejected=router.record_rejected, settings=settings
            )

    def _clock(self) -> datetime:
        return self._true_clock() + timedelta(seconds=self.faults.value("skew"))

    def _requests(self) -> int:
        """Return the number of requests that one connection takes."""
        return int(self.faults.value("requests")) or self._rules.http.requests

    def stop(self) -> None:
        self._running.close()
        self._backend = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # addresses and credentials

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def ec2_url(self) -> str:
        return self.url + self._rules.ec2.path

    @property
    def s3_url(self) -> str:
        return self.url + (self._rules.s3.path or "/")

    @property
    def eucarc(self) -> Path:
        return self.folder / EUCARC

    @property
    def identity(self) -> Identity:
        return self.backend.identity

    # what tests look at

    @property
    def backend(self) -> Backend:
        if self._backend is None:
            raise RuntimeError("the sandbox is not started")
        return self._backend

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """All requests since this object was made, in the order of their answers."""
        return tuple(self._seen)

    @property
    def refusals(self) -> tuple[RecordedRequest, ...]:
        """The refused requests, without those that a fault spoiled."""
        return tuple(seen for seen in self.requests if seen.code and not seen.fault)

    def calls(self, action: str) -> tuple[RecordedRequest, ...]:
        """Return the requests for one EC2 action or S3 operation, such as RegisterImage or PutObject."""
        return tuple(seen for seen in self.requests if seen.action == action)

    @property
    def images(self) -> tuple[RegisteredImage, ...]:
        return self.backend.registry.images()

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances since the folder was made, also ended ones."""
        return self.backend.registry.instances()

    def objects(self, bucket: str) -> tuple[S3Object, ...]:
        """List a bucket by key. Each object has its bytes in a file at `path`, which a test may damage."""
        return self.backend.store.objects(bucket)

    def grant_bucket_to_other(self, name: str) -> None:
        """Make a bucket that belongs to another account."""
        bucket = Bucket(name, SOMEBODY_ELSE, "private", self._clock())
        self.backend.store.add_bucket(bucket, quota=self._rules.s3.bucket_quota)

    def _page(self) -> str:
        return PAGE.format(
            ec2_url=self.ec2_url,
            s3_url=self.s3_url,
            eucarc=self.eucarc,
            buckets=len(self.backend.store.buckets()),
            images=len(self.images),
            instances=len(self.instances),
            boots="them under QEMU" if self._boot else "nothing",
        )


def _machines(folder: Path) -> Machines:
    program = shutil.which(PROGRAM)
    if program is None:
        why = f"{PROGRAM} is not installed"
        raise Halted("the embedded cloud cannot boot anything", why, "Try: apt-get install qemu-system-x86")
    return Machines(folder / "machines", program=program)


def _lock_folder(folder: Path) -> BufferedRandom:
    """Lock the folder, which is made if it does not exist, for as long as the returned file stays open."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab+")
    except OSError as error:
        why = error.strerror or str(error)
        raise NotPermitted(
            f"{folder}: cannot keep a test cloud there", why, "Give another folder."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        what, why = f"{folder}: cannot start a sandbox", "another one runs over this folder"
        raise Deferred(what, why, "Stop that one, or give another folder.") from error
    return file


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Halted(
            f"port {port}: cannot listen on it", why, "Choose another port, or 0 for any."
        ) from error
