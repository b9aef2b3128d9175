"""The service tells what becomes of sets, and no set waits for that."""

import json
from collections.abc import Callable
from contextlib import closing
from http import HTTPStatus

import pytest

from tests.support.clock import Clocks
from tests.support.daemon import daemon_thread, opened_service
from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.message_sinks import WebHook, serving
from tests.support.site_programs import make_program
from tests.support.spool_files import drop_image
from tests.support.waiting import until
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.messages.due import outage_seconds
from uecwatchd.service.messages.messenger import FIRST_PAUSE_SECONDS

KEEPING = 'mkdir -p {folder}/got && cat > {folder}/part && mv {folder}/part "{folder}/got/$UEC_ID"'


@pytest.fixture(autouse=True)
def told(host: Host) -> Callable[..., list[str]]:
    """Have a program keep each message; returns what was told: outcomes and sets, in order."""
    script = make_program(
        host.folder / "notify", f"{KEEPING.format(folder=host.folder)}; echo told $UEC_OUTCOME"
    )
    text = host.config.read_text().replace("settle = 0.3", "settle = 0.05")
    host.configure(f'{text}\n[notify]\ncommand = ["{script}"]\nfresh = {{ karmic = 36 }}\n')

    def told() -> list[str]:
        files = sorted((host.folder / "got").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        bodies = [json.loads(path.read_bytes()) for path in files]
        return [f"{body['outcome']} {body.get('set') or body.get('cloud')}" for body in bodies]

    return told


def messages(host: Host) -> int:
    with closing(open_ledger(host.state)) as book:
        return len(book.outbox.messages())


def test_once_delivers_before_it_ends(host: Host, told: Callable[[], list[str]]) -> None:
    drop_image(host.spool, "karmic", b"1" * 4096)
    drop_image(host.spool, "maverick", b"3" * 4096, sidecar="nonsense = 1\n")
    host.ask("once", code=65)
    assert sorted(told()) == ["done karmic", "rejected maverick"]
    host.ask("once", code=65)
    assert sorted(told()) == ["done karmic", "rejected maverick"]
    drop_image(host.spool, "maverick", b"3" * 4096)
    host.ask("once")
    assert told()[-1] == "recovered maverick"
    assert messages(host) == 0


def test_what_was_done_before_messages_were_wanted_is_not_told(
    host: Host, told: Callable[[], list[str]]
) -> None:
    wanted = host.config.read_text()
    host.configure(wanted.partition("[notify]")[0])
    drop_image(host.spool, "karmic", b"1" * 4096)
    host.ask("once")
    host.configure(wanted)
    host.ask("once")
    drop_image(host.spool, "lucid", b"2" * 4096)
    host.ask("once")
    assert told() == ["done lucid"]
    # The time without messages does not count later either.
    host.configure(wanted.partition("[notify]")[0])
    drop_image(host.spool, "maverick", b"3" * 4096)
    host.ask("once")
    host.configure(wanted)
    host.ask("once")
    assert told() == ["done lucid"]


def test_the_service_tells_of_sets_of_a_cloud_and_of_what_is_stale(
    host: Host, listener: Recorder, told: Callable[[], list[str]]
) -> None:
    clocks = Clocks()
    with (
        opened_service(host, listener, now=clocks.now, monotonic=clocks.monotonic) as service,
        daemon_thread(service),
    ):
        drop_image(host.spool, "karmic", b"1" * 4096)
        until(lambda: told() == ["done karmic"], "the message", detail=lambda: str(told()))
        until(lambda: any(e.sentence == "notify.command: told done" for e in listener.events), "its output")
        host.cloud.stop()
        drop_image(host.spool, "lucid", b"2" * 4096)
        until((host.spool / "lucid.uec.error").exists, "the failure")
        clocks.pass_by(outage_seconds(5) + 60)
        until(lambda: told()[1:] == ["deferred default"], "the outage", detail=lambda: str(told()))
        host.cloud.start()
        until(lambda: len(told()) == 4, "the end of the outage", detail=lambda: str(told()))
        assert sorted(told()[2:]) == ["done lucid", "recovered default"]
        clocks.pass_by(37 * 3600)
        until(lambda: told()[4:] == ["stale karmic"], "staleness", detail=lambda: str(told()))


def test_a_server_that_fails_delays_no_set_and_gets_its_messages_later(
    host: Host, listener: Recorder
) -> None:
    hook, clocks = WebHook(), Clocks()
    hook.status = HTTPStatus.SERVICE_UNAVAILABLE
    host.configure(f"{host.config.read_text().partition('[notify]')[0]}[notify]\nurls = ['{hook.url}']\n")
    with (
        serving(hook),
        opened_service(host, listener, now=clocks.now, monotonic=clocks.monotonic) as service,
        daemon_thread(service),
    ):
        drop_image(host.spool, "karmic", b"1" * 4096)
        until((host.spool / "karmic.emi").exists, "the set")
        until(lambda: any("cannot be delivered" in e.sentence for e in listener.events), "the failure")
        hook.status = HTTPStatus.OK
        clocks.pass_by(FIRST_PAUSE_SECONDS)
        service.ask_reload()
        until(lambda: hook.got, "the message")
    assert hook.got[0]["title"].startswith("uecwatchd: karmic is emi-")
    assert "s3cretword" not in repr(listener.events)
