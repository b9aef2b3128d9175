"""Programs of the administrator get their facts, are heard line by line, and end when they must."""

import json
import os
from pathlib import Path

import pytest

from tests.support.site_programs import make_program
from tests.support.waiting import PATIENCE_SECONDS, no_stop, until
from uecwatchd.errors import Halted, Stopped
from uecwatchd.system.site_program import (
    LINE_CHARACTERS,
    MOST_LINES,
    Lines,
    ProgramEnd,
    SiteProgram,
    reason_not_runnable,
    run_site_program,
    variables_of,
)

HOSTILE = "kar\x1b]0;owned\x07mic\nSubject: x\u202e"


def run(
    tmp_path: Path, script: str, facts: dict | None = None, *, timeout: float = PATIENCE_SECONDS
) -> tuple[ProgramEnd, list[str]]:
    heard: list[str] = []
    program = SiteProgram("hooks.pre", [str(make_program(tmp_path / "hook", script)), "one"], timeout)
    return run_site_program(program, facts or {}, tell=heard.append, check=no_stop), heard


def test_a_program_gets_its_facts_as_json_and_as_variables(tmp_path: Path) -> None:
    facts = {"set": HOSTILE, "attempt": 2, "cloud": "", "members": [{"role": "machine"}], "owner": None}
    _, heard = run(tmp_path, f"cat > {tmp_path}/facts; env | grep ^UEC_ | sort", facts)
    assert json.loads((tmp_path / "facts").read_bytes()) == facts
    assert heard == ["UEC_ATTEMPT=2", "UEC_CLOUD=", r"UEC_SET=kar\x1b]0;owned\x07mic\nSubject: x\u202e"]


def test_a_program_sees_little_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UECWATCHD_SECRET_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    _, heard = run(tmp_path, "env; pwd")
    names = {line.partition("=")[0] for line in heard if "=" in line}
    assert names <= {"PATH", "LANG", "HOME", "PWD", "_", "SHLVL", "OLDPWD"}
    assert heard[-1] == "/"


def test_a_variable_is_printable_and_has_a_limit() -> None:
    values = variables_of({"set": "a\0b", "error": "x" * 200_000, "fine": True})
    assert values["UEC_SET"] == r"a\x00b"
    assert len(values["UEC_ERROR"]) < 5000
    assert "UEC_FINE" not in values


def test_its_exit_code_and_last_line_are_what_counts(tmp_path: Path) -> None:
    end, heard = run(tmp_path, "echo $1; echo two >&2; printf '  last \\033[31m'; exit 3")
    assert end == ProgramEnd("it ended with code 3", r"last \x1b[31m")
    assert heard == ["one", "two", r"last \x1b[31m"]
    assert run(tmp_path, "echo fine")[0] == ProgramEnd("", "fine")
    assert run(tmp_path, "kill -9 $$")[0].problem == "it was ended by signal 9"


def test_output_without_an_end_is_left_out(tmp_path: Path) -> None:
    end, heard = run(tmp_path, "seq 100000; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last")
    assert end == ProgramEnd("", "last")
    assert len(heard) == MOST_LINES + 1
    lines: list[str] = []
    part = Lines(lines.append)
    for _ in range(9):
        part.feed(b"x" * LINE_CHARACTERS)
    part.end()
    assert [len(line) for line in lines] == [LINE_CHARACTERS + 1]


def test_a_program_that_reads_nothing_may_get_more_than_a_pipe_holds(tmp_path: Path) -> None:
    assert run(tmp_path, "exit 0", {"members": ["x" * 1_000_000]})[0].problem == ""


def test_a_program_whose_time_is_over_is_killed_with_those_it_started(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 1000 & echo $! > {tmp_path}/child; echo begun; wait"
    end, _ = run(tmp_path, script, timeout=0.5)
    assert end == ProgramEnd("it was not done after 0.5 s", "begun")
    until(lambda: is_gone(tmp_path), "its child to end")


def test_what_a_program_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    assert run(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/child; echo done")[0] == ProgramEnd("", "done")
    until(lambda: is_gone(tmp_path), "its child to end")


def test_a_stop_ends_a_program(tmp_path: Path) -> None:
    def stop() -> None:
        if (tmp_path / "begun").exists():
            raise Stopped("a", "b", "c")

    script = f"echo $$ > {tmp_path}/child; touch {tmp_path}/begun; exec sleep 1000"
    program = SiteProgram("hooks.pre", [str(make_program(tmp_path / "hook", script))], PATIENCE_SECONDS)
    with pytest.raises(Stopped):
        run_site_program(program, {}, tell=lambda _: None, check=stop)
    assert is_gone(tmp_path)


def is_gone(folder: Path) -> bool:
    try:
        os.kill(int((folder / "child").read_text()), 0)
    except ProcessLookupError:
        return True
    return "\nState:\tZ" in Path(f"/proc/{(folder / 'child').read_text().strip()}/status").read_text()


def test_a_program_that_cannot_be_started_halts(tmp_path: Path) -> None:
    def halted(path: Path) -> str:
        with pytest.raises(Halted) as caught:
            run_site_program(SiteProgram("hooks.pre", [str(path)], 9), {}, tell=print, check=no_stop)
        return str(caught.value)

    assert f"hooks.pre: {tmp_path}/no cannot be started: it does not exist" in halted(tmp_path / "no")
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert "this user may not execute it" in halted(tmp_path / "text")
    assert "it is not a file" in halted(tmp_path)
    broken = make_program(tmp_path / "broken", "")
    broken.write_text("#!/no/such/interpreter\n")
    assert "No such file" in halted(broken)
    assert reason_not_runnable(str(broken)) == ""
