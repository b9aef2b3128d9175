"""The sets of other hosts in an answer, from two ledgers in one database."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.overviews import NOW, SPOOL, a_set
from tests.support.postgres import DatabaseServer
from uecwatchd.cli.meant_set import sets_of_name
from uecwatchd.cli.status.elsewhere import LookElsewhere, count_left_out, facts_elsewhere
from uecwatchd.cli.status.rows import Row, about, rows_elsewhere
from uecwatchd.errors import Rejected
from uecwatchd.ledger.records import Request
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.types import SetId

MANY_DAYS = 10 * 24 * 60.0


@pytest.fixture
def books(database_server: DatabaseServer, tmp_path: Path) -> Iterator[tuple[SqlLedger, SqlLedger]]:
    """The ledgers of host a, and of b with some sets."""
    with database_server.database() as name, ExitStack() as ends:
        fleet = Fleet(database_server, name, tmp_path)
        a, b = (ends.enter_context(closing(fleet.open(host))) for host in ("a", "b"))
        b.put_sets(
            [a_set("old", minutes=MANY_DAYS), a_set("new"), a_set("stuck", "rejected", minutes=MANY_DAYS)]
        )
        yield a, b


def names(book: SqlLedger, look: LookElsewhere, *, most: int = 9) -> list[str]:
    found = facts_elsewhere(book, look, now=NOW, most=most)
    return [row.name for facts in found.values() for row in rows_elsewhere(facts)]


def test_of_too_many_sets_those_that_matter_now_are_shown_and_the_others_counted(
    books: tuple[SqlLedger, SqlLedger],
) -> None:
    a, _ = books
    assert names(a, LookElsewhere()) == ["new", "old", "stuck"]
    assert names(a, LookElsewhere(), most=2) == ["new", "stuck"]
    few = facts_elsewhere(a, LookElsewhere(), now=NOW, most=2)
    assert count_left_out(a, few, LookElsewhere()) == 1
    for look in (LookElsewhere("b"), LookElsewhere(asked="old"), LookElsewhere("b", "old.img")):
        assert "old" in names(a, look, most=2)
        assert count_left_out(a, few, look) == 0


@pytest.mark.parametrize(
    ("look", "shown"),
    [
        (LookElsewhere(asked="b:new"), ["new"]),
        (LookElsewhere(asked=f"b:{SPOOL}/new"), ["new"]),
        (LookElsewhere(asked=f"{SPOOL}/new"), []),
        (LookElsewhere(asked="a:new"), []),
        (LookElsewhere("a"), []),
        (LookElsewhere(asked="no"), []),
    ],
    ids=["host", "folder there", "folder here", "this host", "only this host", "unknown"],
)
def test_a_name_says_where_it_is_looked_for(
    books: tuple[SqlLedger, SqlLedger], look: LookElsewhere, shown: list[str]
) -> None:
    assert names(books[0], look) == shown


def test_what_is_asked_for_and_held_is_seen_from_another_host(books: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = books
    b.put_request(Request(SetId(SPOOL, "stuck"), "retry"))
    b.put_hold(SetId(SPOOL, "new"), since=NOW)
    b.put_hold(SetId(SPOOL, "future"), since=NOW)
    facts = facts_elsewhere(a, LookElsewhere(), now=NOW)["b"]
    assert {row.name: row.state for row in rows_elsewhere(facts)} == {
        "future": "held",
        "new": "held",
        "old": "done",
        "stuck": "queued",
    }
    assert facts.alive is False


def test_an_unknown_host_is_refused(books: tuple[SqlLedger, SqlLedger]) -> None:
    with pytest.raises(Rejected, match="there is no host named bb"):
        facts_elsewhere(books[0], LookElsewhere("bb"), now=NOW)


def test_a_name_with_its_host_is_that_of_one_row() -> None:
    own, other = Row(SetId("/s", "k"), "done", ""), Row(SetId("b:/s", "k"), "done", "")
    odd = Row(SetId("/s", "b:k"), "done", "")
    assert about([own, other], "k", host="a") == (own, other)
    assert about([own, other], "/s/k", host="a") == (own,)
    assert about([own, other], "a:k", host="a") == about([own, other], "a:/s/k", host="a") == (own,)
    assert about([own, other], "b:k", host="a") == about([own, other], "b:/s/k", host="a") == (other,)
    assert about([own, odd], "b:k", host="a") == (odd,)
    assert about([own, other], "c:k", host="a") == about([own], "b:", host="a") == ()


def test_a_set_is_found_by_its_name_on_any_host(books: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = books
    there = SetId(f"b:{SPOOL}", "new")
    for words in ("new", "b:new", f"b:{SPOOL}/new"):
        assert [one.id for one in sets_of_name(words, a)] == [there]
    assert [one.id for one in sets_of_name(f"b:{SPOOL}/new", b)] == [there.there]
    assert sets_of_name(f"{SPOOL}/new", a) == sets_of_name("a:new", a) == ()
    own = a.put_set(a_set("new"))
    assert [one.id for one in sets_of_name("new", a)] == [own.id, there]
    assert [one.id for one in sets_of_name("a:new", a)] == [own.id]
