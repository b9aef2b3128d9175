"""`check` says if hooks and senders of messages can be started, and sends a test message."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.host import Host
from tests.support.message_sinks import WebHook, serving
from tests.support.site_programs import make_program
from uecwatchd.cli.check.host import examine_configuration
from uecwatchd.cli.check.programs import examine_programs
from uecwatchd.cli.check.unit import needs
from uecwatchd.config.records import HookSettings, NotifySettings, Settings


@pytest.fixture
def found() -> Callable[..., list[str]]:
    def examine(*, send: bool = False, **sections: Any) -> list[str]:
        findings = examine_programs(Settings(**sections), send=send)
        return [f"{one.level} {one.what}. {one.hint}".strip() for one in findings]

    return examine


def test_programs_are_looked_for(found: Callable[..., list[str]], tmp_path: Path) -> None:
    good, text = str(make_program(tmp_path / "good", "exit 0")), tmp_path / "text"
    text.write_text("#!/bin/sh\n")
    hooks = HookSettings(pre=(good, "strict"), registered=(str(text),))
    assert found(hooks=hooks, notify=NotifySettings(command=(str(tmp_path / "no"),))) == [
        f"ok hooks.pre: {good}.",
        f"bad hooks.registered: {text} cannot be started: this user may not execute it."
        f" Try: chmod a+rx {text}",
        f"bad notify.command: {tmp_path}/no cannot be started: it does not exist,"
        " or this user cannot reach it. Correct its path, or let the service's user reach it.",
    ]
    assert found() == []


def test_addresses_are_looked_at_without_a_message(found: Callable[..., list[str]]) -> None:
    urls = (SecretStr("json://u:s3cretword@127.0.0.1:1/x"), SecretStr("nonesuch://s3cretword"))
    good, bad = found(notify=NotifySettings(urls=urls))
    assert good == "ok notify.urls[0] (json): an address that apprise knows."
    assert bad.startswith("bad notify.urls[1] (nonesuch): apprise does not know this kind of address")
    assert "s3cretword" not in bad


def test_a_test_message_goes_out_on_each_way(host: Host) -> None:
    hook, file = WebHook(), host.folder / "got"
    program = make_program(host.folder / "notify", f'echo "$UEC_OUTCOME" > {file}; exit 4')
    host.configure(f"{host.config.read_text()}\n[notify]\ncommand = '{program}'\nurls = '{hook.url}'\n")
    with serving(hook):
        said, _ = host.ask("check", "--notify", code=75)
    assert "bad      notify.command: the test message failed: it ended with code 4\n" in said
    assert "ok       notify.urls[0] (json): a test message was delivered\n" in said
    assert file.read_text() == "test\n"
    assert hook.got[0]["title"].startswith("uecwatchd: a test message from ")


def test_a_test_message_without_any_way_says_what_is_missing(found: Callable[..., list[str]]) -> None:
    assert found(send=True) == ["bad no message can be sent. Set command or urls under [notify]."]


def test_settings_of_messages_without_any_way_are_reported(found: Callable[..., list[str]]) -> None:
    useless = NotifySettings(fresh={"karmic": 36}, outcomes=("halted",))
    assert found(notify=useless) == [
        f"warning notify.{one} has no effect: no message can be sent. Set command or urls under [notify]."
        for one in ("fresh", "outcomes")
    ]
    assert len(found(notify=replace(useless, command=("/bin/true",)))) == 1


def test_the_unit_has_to_allow_the_programs(tmp_path: Path) -> None:
    program = make_program(tmp_path / "hook", "exit 0")
    wanted = needs(Settings(hooks=HookSettings(pre=(str(program),))))
    assert [str(need.path) for need in wanted if need.execute] == [os.path.realpath(program)]


def test_an_address_in_a_file_that_all_may_read_is_reported(tmp_path: Path) -> None:
    config = tmp_path / "uecwatchd.toml"
    config.write_text("[notify]\nurls = ['json://u:p@example.com']\n")
    config.chmod(0o644)
    _, warning = examine_configuration(Settings(source=config))
    assert "every user of this machine may read it" in warning.what
