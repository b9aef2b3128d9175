"""The verbs on one host about the sets of another, whose service carries out what they ask for."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tests.support.boots import quick_boots
from tests.support.daemon import daemon_process, wait_for_line
from tests.support.fleet import Fleet
from tests.support.host import Host
from tests.support.postgres import DatabaseServer
from tests.support.published_sets import publish_several
from tests.support.waiting import until
from uecwatchd.cli.schemas import read_schema
from uecwatchd.demo.material import RealSet
from uecwatchd.system.wakeup import wake_daemon

pytestmark = pytest.mark.exhaustive

MakeHost = Callable[[str], Host]


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def hosts(fleet: Fleet, make_host: Callable[..., Host], small_set: RealSet) -> tuple[Host, Host]:
    """Two hosts: the first has run, and the set karmic is done on the second."""
    a, b = (fleet.join(make_host(name), name) for name in ("a", "b"))
    assert a.run("once").returncode == 0
    b.drop_set(small_set)
    assert b.run("once").returncode == 0
    return a, b


def rows(host: Host, *words: str, code: int = 0) -> list[dict]:
    found: list[dict] = json.loads(host.ask("status", *words, "--json", code=code)[0])
    validator = Draft202012Validator(json.loads(read_schema("status")))
    assert [error.message for error in validator.iter_errors(found)] == []
    return found


def state_of(host: Host, *words: str) -> str:
    (row,) = rows(host, *words)
    return str(row["state"])


# --- what is shown ----------------------------------------------------------------------------------------


def test_the_status_has_the_sets_of_all_hosts_each_with_its_host(
    hosts: tuple[Host, Host], small_set: RealSet
) -> None:
    a, b = hosts
    a.drop_set(small_set, "lucid")
    assert a.run("once").returncode == 0
    found = {(row["host"], row["folder"], row["name"]): row["state"] for row in rows(a)}
    assert found == {("a", str(a.spool), "lucid"): "done", ("b", str(b.spool), "karmic"): "done"}
    assert [row["name"] for row in rows(a, "--host", "a")] == ["lucid"]
    assert [row["name"] for row in rows(a, "--host", "b")] == ["karmic"]
    assert rows(a, "karmic") == rows(a, "b:karmic") == rows(a, f"b:{b.spool}/karmic.img")
    assert rows(a, "a:lucid") == rows(a, f"a:{a.spool}/lucid")
    data, _ = a.ask("status")
    _, own, lucid, other, karmic = data.splitlines()
    assert (own, lucid.split()[:2]) == (f"a:{a.spool}:", ["lucid", "done"])
    assert other.startswith(f"b:{b.spool} (the service of b does not run, since ")
    assert karmic.split()[:2] == ["karmic", "done"]
    assert f"in b:{b.spool}: " in a.ask("status", "karmic")[0]
    assert rows(a, "--cloud", "default", "--host", "b")


def test_a_host_without_a_lease_is_silent_and_its_work_stands_still(
    fleet: Fleet, hosts: tuple[Host, Host]
) -> None:
    a, b = hosts
    with daemon_process(b) as process:
        wait_for_line(process, "Watching")
        began = "state = 'working', stage = 'upload the machine', began = 1256858000"
        fleet.execute(f"UPDATE sets SET {began} WHERE host = 'b'")  # noqa: S608 (constants)
        fleet.execute(
            "INSERT INTO advances (host, folder, name, stage, file, done, total, part, began, moment) SELECT"
            " host, folder, name, stage, 'karmic.img', 31, 100, 4, 1256858000, 1256858010 FROM sets"
        )
        (row,) = rows(a, "karmic")
        assert row["state"] == "working"
        assert row["detail"].startswith("upload the machine: karmic.img, part 4, 31 %")
        assert row["detail"].endswith(", since 2009-10-29 23:13:20 UTC")
        assert row["progress"]["done"] == 31
        fleet.expire("b")
        (row,) = rows(a, "karmic")
        assert row["state"] == "queued"
        assert "(b is silent since 20" in a.ask("status")[0]
        assert "b is silent since 20" in a.ask("status", "karmic")[0]


def test_the_history_of_all_hosts_is_told(hosts: tuple[Host, Host], small_set: RealSet) -> None:
    a, b = hosts
    a.drop_set(small_set, "lucid")
    assert a.run("once").returncode == 0
    assert [(one["host"], one["name"]) for one in history(a)] == [("b", "karmic"), ("a", "lucid")]
    assert [one["name"] for one in history(a, "--host", "b")] == ["karmic"]
    assert [one["name"] for one in history(a, "--host", "a")] == ["lucid"]
    assert history(a, "karmic") == history(a, "karmic", "--host", "b") == history(a, "b:karmic")
    assert [one["host"] for one in history(a, "--versions")] == ["a", "b"]
    assert f"b:{b.spool}/karmic" in a.ask("history")[0]
    assert "b:karmic: emi-" in a.ask("history", "--versions")[0]
    story = json.loads(a.ask("log", "karmic", "--json")[0])
    assert {one["host"] for one in story} == {"b"}
    assert a.ask("log", "b:karmic")[0] == b.ask("log", "karmic")[0]


def history(host: Host, *words: str) -> list[dict]:
    found: list[dict] = json.loads(host.ask("history", *words, "--json")[0])
    verb = "versions" if "--versions" in words else "history"
    assert Draft202012Validator(json.loads(read_schema(verb))).is_valid(found)
    return found


def test_the_page_of_each_host_shows_all_and_its_metrics_its_own(
    hosts: tuple[Host, Host], small_set: RealSet, tmp_path: Path
) -> None:
    a, _ = hosts
    page = tmp_path / "page"
    page.mkdir()
    a.configure(f'{a.config.read_text()}\n[outputs]\npage = "{page}"\nmetrics = "{page}"\n')
    a.drop_set(small_set, "lucid")
    assert a.run("once").returncode == 0
    facts = json.loads((page / "status.json").read_text())
    assert {(one["host"], one["name"]): one["state"] for one in facts["sets"]} == {
        ("a", "lucid"): "done",
        ("b", "karmic"): "done",
    }
    assert [one["state"] for one in facts["hosts"]] == ["running", "stopped"]
    assert [(one["host"], one["name"]) for one in facts["attempts"]] == [("a", "lucid"), ("b", "karmic")]
    assert "the service of b does not run" in (page / "status.html").read_text()
    metrics = (page / "uecwatchd.prom").read_text()
    assert 'uecwatchd_sets{host="a",state="done"} 1.0' in metrics
    assert 'uecwatchd_fleet_hosts{state="stopped"} 1.0' in metrics


# --- requests ---------------------------------------------------------------------------------------------


def test_what_is_asked_for_on_one_host_is_done_by_the_service_of_the_other(
    hosts: tuple[Host, Host], small_set: RealSet
) -> None:
    a, b = hosts
    with daemon_process(b) as process:
        wait_for_line(process, "Watching")

        def ask(*words: str, told: str) -> str:
            _, talk = a.ask(*words)
            assert "Host b sees this within 10 s." in talk
            wake_daemon(b.state)  # as it wakes up itself after that time
            wait_for_line(process, told)
            return talk

        assert "b:karmic is held (done: emi-" in ask("hold", "karmic", told="karmic: held back")
        assert state_of(b, "karmic") == state_of(a, "karmic") == "held"
        assert "b:karmic is held no longer" in ask("release", "karmic", told="karmic: released")
        emi = (b.spool / "karmic.emi").read_text()
        (b.spool / "karmic.emi").unlink()
        ask("retry", f"b:{b.spool}/karmic", told="karmic: to be tried again")
        until(lambda: (b.spool / "karmic.emi").exists(), "its id is written again")
        assert (b.spool / "karmic.emi").read_text() == emi
        assert "b:karmic is held on cloud default" in ask(
            "hold", "karmic", "--cloud", "default", told="karmic: held back until it is released, on cloud"
        )
        ask("release", "karmic", "--cloud", "default", told="karmic: released, on cloud default")
        ask("hold", "karmic", told="karmic: held back")
        assert "b:karmic is forgotten." in ask("forget", "karmic", told="karmic: forgotten, on request")
        assert a.ask("history", "karmic", code=66)
        assert "b:later is held once it comes" in ask("hold", "b:later", told="later: held back")
        a.ask("release", "b:later")


def test_a_request_is_seen_by_itself_and_kept_for_a_service_that_does_not_run(
    hosts: tuple[Host, Host],
) -> None:
    a, b = hosts
    _, talk = a.ask("hold", "karmic")
    assert talk.endswith("Host b does this when its service runs again.\n")
    with daemon_process(b) as process:
        wait_for_line(process, "Watching")
        found = json.loads(a.ask("release", "karmic", "--json")[0])
        assert (found["host"], found["folder"], found["done"]) == ("b", str(b.spool), True)
        wait_for_line(process, "karmic: released, on request")


def test_an_image_is_taken_back_and_used_again_by_the_host_that_has_its_set(
    hosts: tuple[Host, Host], small_set: RealSet
) -> None:
    a, b = hosts
    first = (b.spool / "karmic.emi").read_text().strip()
    shutil.copy(small_set.machine, b.spool / "karmic.img")
    with (b.spool / "karmic.img").open("r+b") as image:
        image.seek(-1, 2)
        image.write(b"x")
    assert b.run("once").returncode == 0
    second = (b.spool / "karmic.emi").read_text().strip()
    assert second != first
    assert "it is done there" not in a.ask("rollback", "karmic", "--dry-run")[1]
    with daemon_process(b) as process:
        wait_for_line(process, "Watching")
        data, talk = a.ask("rollback", "karmic", "--yes")
        assert data.strip() == first, talk
        assert (b.spool / "karmic.emi").read_text().strip() == first
        assert f"uecwatchd release b:{b.spool}/karmic" in talk
        pruned = json.loads(a.ask("prune", "karmic", "--json")[0])
        assert [(one["host"], one["id"], one["step"]) for one in pruned] == [("b", second, "stay")]
        data, talk = a.ask("withdraw", "karmic", "--yes")
        assert f"{first} gone" in data, talk
        assert not [one for one in b.cloud.images if one.id == first]
        assert state_of(a, "karmic") == "held"


def test_a_withdrawal_waits_for_a_host_that_does_not_run(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    _, talk = a.ask("withdraw", "b:karmic", "--yes", code=75)
    assert "Host b does it when its service runs again." in talk
    assert b.run("once").returncode == 0
    assert not [one for one in b.cloud.images if one.type == "machine"]


def test_verbs_that_need_only_the_cloud_work_from_any_host(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    assert "the ledger's digest (its file is on host b)" in a.ask("verify", "karmic")[0]
    assert json.loads(a.ask("verify", "b:karmic", "--json")[0])
    _, talk = a.ask("inspect", "karmic", code=65)
    assert f"On b: uecwatchd inspect {b.spool}/karmic" in talk


def test_an_image_of_another_host_is_booted_from_here(
    fleet: Fleet, make_host: Callable[..., Host], small_set: RealSet
) -> None:
    a, b = (make_host(name) for name in ("a", "b"))
    quick_boots(a)
    for name, host in (("a", a), ("b", b)):
        fleet.join(host, name)
    b.drop_set(small_set)
    assert b.run("once").returncode == 0
    found = json.loads(a.ask("boot", "karmic", "--json")[0])
    assert Draft202012Validator(json.loads(read_schema("boot"))).is_valid(found)
    assert (found["host"], found["folder"], found["outcome"]) == ("b", str(b.spool), "passed")
    assert fleet.execute("SELECT * FROM boots") == [], "nothing of it is left"


def test_older_images_are_removed_by_the_rules_of_the_host_that_made_them(
    fleet: Fleet, make_host: Callable[..., Host]
) -> None:
    a, b = (fleet.join(make_host(name), name) for name in ("a", "b"))
    assert a.run("once").returncode == 0
    publish_several(b, 4)
    before = len(b.cloud.images)
    b.configure(f"{b.config.read_text()}\n[retention]\nkeep = 2\n")
    with daemon_process(b) as process:
        wait_for_line(process, "Watching")
        found = json.loads(a.ask("prune", "karmic", "--json")[0])
    assert Draft202012Validator(json.loads(read_schema("prune"))).is_valid(found)
    steps = [one["step"] for one in found]
    assert steps.count("remove") == before - len(b.cloud.images) > 0


# --- bad input --------------------------------------------------------------------------------------------


def test_a_name_that_two_hosts_have_is_not_guessed_at(hosts: tuple[Host, Host], small_set: RealSet) -> None:
    a, b = hosts
    a.drop_set(small_set)
    assert a.run("once").returncode == 0
    assert len(rows(a, "karmic")) == 2
    for verb in (["hold"], ["retry"], ["log"], ["withdraw", "--yes"], ["verify"], ["boot"], ["prune"]):
        _, talk = a.ask(*verb, "karmic", code=64)
        assert f"Say {a.spool}/karmic or b:{b.spool}/karmic." in talk, verb
    a.ask("hold", "a:karmic")
    assert [state_of(a, f"{name}:karmic") for name in ("a", "b")] == ["held", "done"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["status", "--host", "bb"], 65, "there is no host named bb"),
        (["history", "--host", "bb"], 65, "there is no host named bb"),
        (["status", "b:lucid"], 66, "there is nothing named b:lucid"),
        (["retry", "b:lucid"], 66, "b:lucid: there is no such set"),
        (["log", "b:lucid"], 66, "lucid: there is no history of it"),
        (["withdraw", "b:lucid", "--yes"], 66, "lucid: there is no history of it"),
        (["prune", "b:karmic", "--dry-run"], 65, "the configuration of host b decides"),
        (["hold", "b:/nowhere/lucid"], 64, "that is none of the spool folders"),
    ],
    ids=lambda one: one[0] if isinstance(one, list) else "",
)
def test_a_host_or_set_that_there_is_not_is_named(
    hosts: tuple[Host, Host], words: list[str], code: int, told: str
) -> None:
    _, talk = hosts[0].ask(*words, code=code)
    assert told in talk


def test_a_host_alone_has_no_other_hosts(host: Host, small_set: RealSet) -> None:
    host.drop_set(small_set)
    assert host.run("once").returncode == 0
    assert [row["host"] for row in rows(host)] == [None]
    for verb in ("status", "history"):
        _, talk = host.ask(verb, "--host", "b", code=65)
        assert "This host has its ledger for itself" in talk
    assert re.match(r"SET +STATE\nkarmic +done", host.ask("status")[0])


def test_without_the_database_each_verb_says_so(hosts: tuple[Host, Host], fleet: Fleet) -> None:
    a, _ = hosts
    with fleet.server.away():
        for words in (["status"], ["status", "karmic"], ["hold", "b:karmic"], ["history"], ["fleet"]):
            _, talk = a.ask(*words, code=75)
            assert "cannot connect" in talk or "cannot use it" in talk, talk
