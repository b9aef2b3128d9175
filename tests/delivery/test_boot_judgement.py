"""A boot is judged by what is seen of its instance, without asking anybody."""

import socket
from contextlib import closing
from dataclasses import replace

import pytest

from uecwatchd.clouds.instances import CloudInstance
from uecwatchd.delivery.boot_judgement import BootSight, judge_boot
from uecwatchd.delivery.test_boot import try_port

RUNNING = CloudInstance("i-12345678", "running", "emi-1", "t", (), "")
SIGHT = BootSight(RUNNING, "boot\n", 10.0, 900.0)
UP = replace(SIGHT, console="tiny login: ")


def instance(state: str, reason: str = "") -> CloudInstance:
    return replace(RUNNING, state=state, reason=reason)


@pytest.mark.parametrize(
    ("sight", "outcome"),
    [
        pytest.param(SIGHT, None, id="on its way"),
        pytest.param(UP, "passed", id="up, and no address"),
        pytest.param(replace(UP, port="open"), "passed", id="up, and it answers"),
        pytest.param(replace(UP, port="unreachable"), "passed", id="up, behind a filter"),
        pytest.param(replace(UP, port="refused", up_for=5.0), None, id="up, and not listening yet"),
        pytest.param(replace(UP, port="refused", up_for=120.0), "failed", id="up, and never listening"),
        pytest.param(replace(UP, port="refused", elapsed=900.0), "failed", id="up, and no time is left"),
        pytest.param(replace(UP, instance=instance("terminated")), "passed", id="up, and over"),
        pytest.param(replace(SIGHT, console="Kernel panic - not syncing: x"), "failed", id="a panic"),
        pytest.param(replace(SIGHT, instance=instance("terminated")), "failed", id="over by itself"),
        pytest.param(replace(SIGHT, instance=instance("stopped")), "failed", id="stopped by itself"),
        pytest.param(
            replace(SIGHT, instance=instance("terminated", "Server.InternalError")), "cloud", id="a fault"
        ),
        pytest.param(replace(SIGHT, instance=None, elapsed=5.0), None, id="not listed yet"),
        pytest.param(replace(SIGHT, instance=None, elapsed=61.0), "failed", id="not listed any more"),
        pytest.param(replace(SIGHT, instance=instance("pending"), elapsed=899.0), None, id="pending"),
        pytest.param(replace(SIGHT, instance=instance("pending"), elapsed=900.0), "cloud", id="for ever"),
        pytest.param(replace(SIGHT, elapsed=900.0), "failed", id="no login in time"),
        pytest.param(replace(SIGHT, console="", elapsed=900.0), "failed", id="no console in time"),
        pytest.param(replace(SIGHT, console="", port="open"), "passed", id="no console, and it answers"),
    ],
)
def test_a_boot_has_passed_or_failed_or_its_cloud_has(sight: BootSight, outcome: str | None) -> None:
    verdict = judge_boot(sight, expect="", port=22)
    assert (verdict and verdict.outcome) == outcome


def test_an_expected_text_has_to_come_even_if_the_port_answers() -> None:
    answering = replace(SIGHT, console="", port="open")
    assert judge_boot(answering, expect="READY", port=22) is None
    late = judge_boot(replace(answering, console="boot", elapsed=900.0), expect="READY", port=22)
    assert late is not None
    assert '"READY"' in late.why


def test_a_port_is_open_refused_or_unreachable() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert try_port(("name.example", "127.0.0.1"), port) == "open"
    assert try_port(("127.0.0.1",), port) == "refused"
    assert try_port((), port) == "unreachable"
    assert try_port(("name.example",), port) == "unreachable", "a name of a stranger is not looked up"
