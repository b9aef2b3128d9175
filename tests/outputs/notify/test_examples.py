"""The examples do what their comments say, with stand-ins for curl and msmtp that keep what they get."""

import base64
import os
import time
from pathlib import Path

import pytest

from tests.support.site_programs import make_program
from tests.support.waiting import PATIENCE_SECONDS, no_stop
from uecwatchd.system.site_program import ProgramEnd, SiteProgram, run_site_program

EXAMPLES = Path(__file__).parents[3] / "etc" / "examples"
FACTS = {
    "id": "abc",
    "outcome": "done",
    "sentence": "kärmic\nBcc: x is emi-1",
    "host": "here",
    "set": "kärmic",
}


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with what the stand-ins got: their arguments, then their input."""
    for name in ("curl", "msmtp"):
        make_program(tmp_path / name, f'printf "%s\\n" "$@" > {tmp_path}/sent; cat >> {tmp_path}/sent')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "sent"


def run(name: str, *arguments: str, facts: dict[str, object]) -> ProgramEnd:
    program = SiteProgram("example", [str(EXAMPLES / name), *arguments], PATIENCE_SECONDS)
    return run_site_program(program, facts, tell=print, check=no_stop)


def test_a_mail_has_a_subject_of_one_line_and_the_id_of_the_message(sent: Path) -> None:
    assert run("notify-mail", "a@example.com", facts=FACTS).problem == ""
    head, _, body = sent.read_text().partition("\n\n")
    lines = head.splitlines()
    assert lines[-1] == "Content-Type: text/plain; charset=utf-8"
    (subject,) = [line for line in lines if line.startswith("Subject: ")]
    text = base64.b64decode(subject.split("?")[3]).decode()
    assert text == r"uecwatchd: kärmic\nBcc: x is emi-1"
    assert "Message-ID: <abc@here>" in lines
    assert "UEC_OUTCOME=done" in body.splitlines()


def test_a_ping_says_if_it_is_about_a_failure(sent: Path, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("https://example.com/secret\n")
    assert run("notify-ping", str(tmp_path / "url"), facts=FACTS).problem == ""
    assert sent.read_text().splitlines()[-1] == 'url = "https://example.com/secret"'
    assert "secret" not in "".join(sent.read_text().splitlines()[:-1])
    assert run("notify-ping", str(tmp_path / "url"), facts={**FACTS, "outcome": "halted"}).problem == ""
    assert sent.read_text().splitlines()[-1] == 'url = "https://example.com/secret/fail"'


def test_an_old_image_is_refused_with_a_reason(tmp_path: Path) -> None:
    image = tmp_path / "a\nb.img"
    image.touch()
    facts: dict[str, object] = {"files": {"machine": str(image)}}
    assert run("hook-age", "30", facts=facts).problem == ""
    os.utime(image, (time.time() - 40 * 86400,) * 2)
    end = run("hook-age", "30", facts=facts)
    assert end.reason == "the machine was built 40 days ago, and 30 are allowed (it ended with code 1)"
