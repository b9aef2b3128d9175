"""An embedded cloud whose clock can be moved, and checks of hosts that use it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from uecwatchd.cli.check.examine import examine
from uecwatchd.cli.check.finding import Finding
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.sandbox.state.store import Bucket

TEXT = """\
[spool]
folders = ["spool"]
[state]
dir = "state"
[defaults]
bucket = "{bucket}"
[cloud.default]
dialect = "{dialect}"
eucarc = "{eucarc}"
{lines}
"""


@dataclass
class Hands:
    """Of the cloud's clock."""

    shift: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.shift


@pytest.fixture(scope="session")
def session_hands() -> Hands:
    return Hands()


@pytest.fixture
def hands(session_hands: Hands) -> Iterator[Hands]:
    yield session_hands
    session_hands.shift = timedelta()


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory, session_hands: Hands) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("box") / "cloud", clock=session_hands) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def make_bucket() -> Callable[[Sandbox, str], None]:
    """Gives the cloud's user a bucket, which a check would not make."""

    def make(cloud: Sandbox, name: str) -> None:
        if name not in {bucket.name for bucket in cloud.backend.store.buckets()}:
            mine = Bucket(name, cloud.identity.account, "private", datetime.now(UTC))
            cloud.backend.store.add_bucket(mine, quota=100)

    return make


@pytest.fixture
def configured(tmp_path: Path, box: Sandbox) -> Callable[..., Settings]:
    """Settings with one cloud, `default`, which has these lines in its table."""

    def read(
        *lines: str, eucarc: Path | None = None, bucket: str = "uec-images", dialect: str = "sandbox"
    ) -> Settings:
        (tmp_path / "spool").mkdir(exist_ok=True)
        config = tmp_path / "uecwatchd.toml"
        said = {"eucarc": eucarc or box.eucarc, "bucket": bucket, "dialect": dialect}
        config.write_text(TEXT.format(lines="\n".join(lines), **said))
        return load(config, environ={})

    return read


@pytest.fixture
def check(configured: Callable[..., Settings]) -> Callable[..., list[Finding]]:
    """Everything that `uecwatchd check` finds, with settings as `configured` makes them."""
    return lambda *lines, **said: list(examine(configured(*lines, **said), clock=lambda: datetime.now(UTC)))


@pytest.fixture
def own_eucarc(tmp_path: Path, box: Sandbox) -> Callable[..., Path]:
    """A copy of the cloud's eucarc, changed, with its files beside it."""

    def write(change: Callable[[str], str] = str) -> Path:
        folder = tmp_path / "credentials"
        folder.mkdir()
        for name in ("cloud-cert.pem", "euca2-admin-cert.pem", "euca2-admin-pk.pem", "eucarc"):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text((box.folder / name).read_text())
        (folder / "eucarc").write_text(change(box.eucarc.read_text()))
        return folder / "eucarc"

    return write


@pytest.fixture(scope="session")
def of() -> Callable[[list[Finding], str], list[str]]:
    """The findings of a level, each as one text."""
    return lambda findings, level: [f"{one.what}. {one.hint}" for one in findings if one.level == level]


@pytest.fixture(scope="session")
def the_bad(of: Callable[..., list[str]]) -> Callable[[list[Finding]], str]:
    """The one bad finding that there is."""

    def only(findings: list[Finding]) -> str:
        (line,) = of(findings, "bad")
        return line

    return only
