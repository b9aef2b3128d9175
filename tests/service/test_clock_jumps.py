"""A wall clock that was set, or a machine that slept."""

import pytest

from uecwatchd.service.clock_jumps import JUMP_SECONDS, ClockJumps


@pytest.mark.parametrize("jump", [3600.0, -3600.0, JUMP_SECONDS])
def test_a_jump_of_the_wall_clock_is_seen_once(jump: float) -> None:
    wall, steady = [1000.0], [5.0]
    jumps = ClockJumps(now=lambda: wall[0], monotonic=lambda: steady[0])
    assert jumps.seconds() == 0.0, "there is nothing to compare with"
    wall[0] += jump + 60.0
    steady[0] += 60.0
    assert jumps.seconds() == pytest.approx(jump)
    assert jumps.seconds() == 0.0


def test_slow_drift_is_no_jump() -> None:
    wall, steady = [1000.0], [5.0]
    jumps = ClockJumps(now=lambda: wall[0], monotonic=lambda: steady[0])
    for _ in range(10):
        wall[0] += 60.0 + JUMP_SECONDS / 2
        steady[0] += 60.0
        assert jumps.seconds() == 0.0
