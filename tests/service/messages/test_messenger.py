"""Messages leave the outbox when they are delivered, and not before: real programs, real servers."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.clock import Clock
from tests.support.listener import Recorder
from tests.support.message_sinks import Hanging, MailServer, WebHook, serving
from tests.support.site_programs import make_program
from tests.support.waiting import until
from uecwatchd.config.records import NotifySettings
from uecwatchd.events import Kind
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.outbox import Message
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.outputs.notify.facts import complete
from uecwatchd.outputs.notify.ways import ways_of
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.messages.messenger import (
    FIRST_PAUSE_SECONDS,
    GIVE_UP_SECONDS,
    LEAST_TRIES,
    LONGEST_PAUSE_SECONDS,
    MOST_PASSED,
    PATIENT_TRIES,
    Messenger,
    heir_of,
    is_due,
    next_of,
    pause_after,
)
from uecwatchd.system.signals import Stop
from uecwatchd.types import SetId

KARMIC = SetId("/spool", "karmic")
HOSTILE = SetId("/spool", "x\r\nBcc: all@example.com\x1b[2J")
TIMEOUT_SECONDS = 60.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(open_ledger(tmp_path / "state")) as book:
        yield book


class Office:
    """A messenger, its outbox, and a clock that only the test sets."""

    def __init__(self, ledger: Ledger, listener: Recorder, settings: NotifySettings) -> None:
        self.outbox, self.listener, self.clock = ledger.outbox, listener, Clock(1e9)
        self.ways, self.stopping = ways_of(settings), Stop(grace=0.1)
        self.messenger = Messenger(
            self.outbox,
            ways=self.ways,
            conditions=Conditions(listener),
            listener=listener,
            now=self.clock,
            stopping=self.stopping,
        )

    def put(self, *numbers: int, about: SetId = KARMIC) -> None:
        now = self.clock()
        facts = {"set": about.name, "folder": about.folder, "sentence": f"{about.name} is emi-1"}
        for number in numbers:
            full = complete(facts, about=about, outcome="done", since=float(number), now=now)
            made = Message(str(number), about, "done", now, "", full)
            self.outbox.announce([replace(made, way=way.name) for way in self.ways], {})

    def waiting(self) -> list[str]:
        return [message.id for message in self.outbox.messages()]

    def said(self) -> list[str]:
        return self.listener.sentences(Kind.MESSAGE)


@pytest.fixture
def office(ledger: Ledger, listener: Recorder, tmp_path: Path) -> Office:
    """Its program notes what it gets, and fails while there is a file `ill`."""
    script = f'echo "$UEC_ID $UEC_SET" >> {tmp_path}/got; [ ! -e {tmp_path}/ill ] || {{ echo ill; exit 3; }}'
    program = make_program(tmp_path / "notify", script)
    return Office(ledger, listener, NotifySettings(command=(str(program),), timeout=TIMEOUT_SECONDS))


def got(tmp_path: Path) -> list[str]:
    file = tmp_path / "got"
    return file.read_text().splitlines() if file.exists() else []


def test_messages_are_delivered_in_order_and_leave(office: Office, tmp_path: Path) -> None:
    office.put(1, 2, 3)
    assert office.messenger.deliver_due() > 0
    assert office.waiting() == []
    assert [line.split()[1] for line in got(tmp_path)] == ["karmic"] * 3
    assert len({line.split()[0] for line in got(tmp_path)}) == 3


def test_a_message_that_fails_is_tried_again_later_and_keeps_its_place(
    office: Office, tmp_path: Path
) -> None:
    (tmp_path / "ill").touch()
    office.put(1, 2)
    assert office.messenger.deliver_due() == FIRST_PAUSE_SECONDS
    assert (office.waiting(), len(got(tmp_path))) == (["1", "2"], 1)
    (first, _) = office.outbox.messages()
    assert (first.tries, first.problem) == (1, "ill (it ended with code 3)")
    office.clock.now += FIRST_PAUSE_SECONDS
    assert office.messenger.deliver_due() == 2 * FIRST_PAUSE_SECONDS
    (tmp_path / "ill").unlink()
    office.clock.now += 2 * FIRST_PAUSE_SECONDS
    office.messenger.deliver_due()
    assert office.waiting() == []
    *tries, last = (line.split()[0] for line in got(tmp_path))
    assert len(tries) == 3
    assert len({*tries}) == 1
    assert last not in tries


def test_a_failure_is_told_once_while_it_lasts_with_what_to_do(office: Office, tmp_path: Path) -> None:
    (tmp_path / "ill").touch()
    office.put(1)
    for _ in range(3):
        office.messenger.deliver_due()
        office.clock.now += LONGEST_PAUSE_SECONDS
    (told,) = [event for event in office.listener.events if event.level == "warning"]
    assert told.sentence == "notify.command: messages cannot be delivered: ill (it ended with code 3)"
    assert told.fields["hint"] == "See what the program says; then try: uecwatchd check --notify"
    (tmp_path / "ill").unlink()
    office.messenger.deliver_due()
    assert office.said()[-1] == "notify.command: messages are delivered again"
    assert "notify.command: ill" in office.said()


def test_a_message_is_given_up_after_a_day_and_many_tries(office: Office, tmp_path: Path) -> None:
    (tmp_path / "ill").touch()
    office.put(1)
    for _ in range(LEAST_TRIES):
        office.messenger.deliver_due()
        assert office.waiting() == ["1"]
        office.clock.now += GIVE_UP_SECONDS / LEAST_TRIES
    office.messenger.deliver_due()
    assert office.waiting() == []
    assert office.said()[-1] == "notify.command: given up after a day: karmic is emi-1"


def test_messages_that_are_old_at_their_first_try_are_not_given_up(office: Office, tmp_path: Path) -> None:
    (tmp_path / "ill").touch()
    office.put(1, 2)
    office.clock.now += 3 * GIVE_UP_SECONDS
    for _ in range(LEAST_TRIES - 1):
        office.messenger.deliver_due()
        office.clock.now += LONGEST_PAUSE_SECONDS
    assert office.waiting() == ["1", "2"]
    (tmp_path / "ill").unlink()
    office.messenger.deliver_due()
    assert office.waiting() == []


def test_pauses_grow_to_a_limit() -> None:
    assert [pause_after(tries) for tries in (0, 1, 2, 9, 10_000)] == [10, 20, 40, 900, 900]
    message = Message("1", KARMIC, "done", 0.0, "command", {}, next_try=1000.0)
    assert [is_due(message, now=now) for now in (999.0, 1000.0, 50.0)] == [False, True, True]


def test_a_program_that_is_missing_is_a_failure_like_others(
    ledger: Ledger, listener: Recorder, tmp_path: Path
) -> None:
    office = Office(ledger, listener, NotifySettings(command=(str(tmp_path / "no"),)))
    office.put(1)
    office.messenger.deliver_due()
    assert office.waiting() == ["1"]
    assert office.said() == [
        f"notify.command: messages cannot be delivered: {tmp_path}/no cannot be started:"
        " it does not exist, or this user cannot reach it"
    ]


def test_a_message_of_a_way_that_is_gone_is_dropped(office: Office, tmp_path: Path) -> None:
    office.put(1)
    office.messenger.configure(())
    office.messenger.deliver_due()
    assert (office.waiting(), got(tmp_path)) == ([], [])
    (told,) = office.listener.events
    assert (told.level, told.sentence) == (
        "warning", "not sent, because its way is no longer configured: karmic is emi-1"
    )  # fmt: skip


def test_a_stop_leaves_the_message_for_the_next_start(
    ledger: Ledger, listener: Recorder, tmp_path: Path
) -> None:
    program = make_program(tmp_path / "notify", f"touch {tmp_path}/begun; sleep 1000")
    office = Office(ledger, listener, NotifySettings(command=(str(program),), timeout=TIMEOUT_SECONDS))
    office.put(1)
    office.messenger.start()
    until((tmp_path / "begun").exists, "the program")
    office.stopping.set()
    began = time.monotonic()
    office.messenger.close()
    assert time.monotonic() - began < TIMEOUT_SECONDS / 2
    assert [(message.id, message.tries) for message in office.outbox.messages()] == [("1", 0)]


def test_a_message_that_is_refused_lets_later_ones_pass(
    ledger: Ledger, listener: Recorder, tmp_path: Path
) -> None:
    program = make_program(tmp_path / "notify", f'echo "$UEC_SET" >> {tmp_path}/got; [ "$UEC_SET" != bad ]')
    office = Office(ledger, listener, NotifySettings(command=(str(program),), timeout=TIMEOUT_SECONDS))
    office.put(1, about=SetId("/spool", "bad"))
    office.put(2)
    for _ in range(PATIENT_TRIES):
        assert "karmic" not in got(tmp_path)
        office.clock.now += office.messenger.deliver_due()
    assert got(tmp_path) == ["bad"] * PATIENT_TRIES + ["karmic"]
    office.put(3)
    office.messenger.deliver_due()
    assert (office.waiting(), got(tmp_path)[-2:]) == (["1"], ["bad", "karmic"])
    assert [event.level for event in listener.events] == ["warning"]


def test_a_way_that_refuses_everything_is_not_tried_for_everything() -> None:
    message = Message("1", KARMIC, "done", 0.0, "command", {})
    stuck = [
        replace(message, tries=PATIENT_TRIES, next_try=100.0 - number, number=number)
        for number in range(MOST_PASSED + 1)
    ]
    new = replace(message, number=99)
    assert next_of([*stuck[1:], new], now=50.0) == new
    assert next_of([*stuck, new], now=50.0) == stuck[-1]
    assert next_of([*stuck, new], now=100.0) == stuck[0]
    assert next_of([replace(stuck[0], tries=PATIENT_TRIES - 1), new], now=50.0).number == 0


@pytest.mark.parametrize(
    ("before", "after", "heir"),
    [
        ("", "json://b/", "json://b/"),
        ("json://a/", "json://b/", "json://b/"),
        ("json://a/ json://b/", "json://b/ json://c/", "json://c/"),
        ("json://a/ json://b/", "json://b/", None),
        ("json://a/", "json://b/ json://c/", None),
    ],
)
def test_the_only_new_address_is_the_heir_of_one_that_is_gone(
    before: str, after: str, heir: str | None
) -> None:
    known, ways = (
        ways_of(NotifySettings(command=("/a",), urls=tuple(map(SecretStr, urls.split()))))
        for urls in (before, after)
    )
    name = heir_of({way.name for way in known}, ways)
    assert [way.url for way in ways if way.name == name] == ([heir] if heir else [])


def test_messages_of_a_corrected_address_go_to_the_new_one(ledger: Ledger, listener: Recorder) -> None:
    office = Office(ledger, listener, NotifySettings(urls=(SecretStr("json://127.0.0.1:1/"),)))
    office.put(1)
    office.messenger.deliver_due()
    hook = WebHook()
    with serving(hook):
        office.messenger.configure(ways_of(NotifySettings(urls=(SecretStr(hook.url),))))
        office.messenger.deliver_due()
    assert (office.waiting(), len(hook.got)) == ([], 1)


# --- addresses of apprise ---------------------------------------------------------------------------------


def test_a_web_hook_and_a_mail_server_get_what_happened(ledger: Ledger, listener: Recorder) -> None:
    hook, mail = WebHook(), MailServer()
    with serving(hook), serving(mail):
        office = Office(ledger, listener, NotifySettings(urls=(SecretStr(hook.url), SecretStr(mail.url))))
        office.put(1)
        office.messenger.deliver_due()
    assert (office.waiting(), office.said()) == ([], [])
    (body,) = hook.got
    assert (body["title"], body["type"]) == ("uecwatchd: karmic is emi-1", "success")
    assert body["message"].startswith("karmic is emi-1\n\nset: karmic\nfolder: /spool\nhost: ")
    (text,) = mail.got
    assert "Subject: uecwatchd: karmic is emi-1\r\n" in text


def test_a_hostile_name_adds_no_header_and_no_escape(ledger: Ledger, listener: Recorder) -> None:
    mail = MailServer()
    with serving(mail):
        office = Office(ledger, listener, NotifySettings(urls=(SecretStr(mail.url),)))
        office.put(1, about=HOSTILE)
        office.messenger.deliver_due()
    (text,) = mail.got
    head = text.partition("\r\n\r\n")[0]
    assert r"Subject: uecwatchd: x\r\nBcc: all@example.com\x1b[2J" in head.replace("\r\n ", " ")
    assert not [line for line in head.splitlines() if line.startswith("Bcc")]
    assert "\x1b" not in text


def test_a_server_that_hangs_ends_by_the_time_limit_and_others_have_their_turn(
    ledger: Ledger, listener: Recorder
) -> None:
    hanging, hook = Hanging(), WebHook()
    with serving(hanging), serving(hook):
        urls = (SecretStr(hanging.url), SecretStr(hook.url))
        office = Office(ledger, listener, NotifySettings(urls=urls, timeout=TIMEOUT_SECONDS))
        first, other = office.ways
        office.messenger.configure([replace(first, program=replace(first.program, timeout=5.0)), other])
        office.put(1)
        office.messenger.deliver_due()
    assert len(hook.got) == 1
    assert [message.tries for message in office.outbox.messages()] == [1]
    assert "notify.urls[0] (mailto): messages cannot be delivered: it was not done after 5 s" in office.said()


def test_no_secret_of_an_address_is_in_the_ledger_or_in_a_message(
    ledger: Ledger, listener: Recorder, tmp_path: Path
) -> None:
    hook = WebHook()
    hook.status = HTTPStatus.FORBIDDEN
    with serving(hook):
        office = Office(ledger, listener, NotifySettings(urls=(SecretStr(hook.url),)))
        office.put(1)
        office.messenger.deliver_due()
    (failed,) = office.outbox.messages()
    assert failed.tries == 1
    assert "s3cretword" not in repr((office.ways, office.outbox.messages(), listener.events))
    stored = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert b"s3cretword" not in stored
