"""The page: valid HTML that a screen reader can read, whatever the names of sets are."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import html5lib
import pytest

from tests.support.overviews import (
    ALICE,
    BOB,
    NOW,
    SPOOL,
    a_set,
    an_attempt,
    fleet_overview,
    full_overview,
    overview,
)
from uecwatchd.ledger.records import Failure, SetBuild
from uecwatchd.outputs.fleet_overview import MOST_SETS
from uecwatchd.outputs.overview import STATES, Overview, choose
from uecwatchd.outputs.overview_json import write_overview
from uecwatchd.outputs.page import LONGEST_TEXT_CHARS, render_page
from uecwatchd.outputs.situation import Situation, SpoolFolder
from uecwatchd.types import SetId

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\nb\x1b[2J\x9b31m",
    "emi\u202egnp.exe",
    "\u2066hidden\u2069\u200b",
    "{{ 7 * 7 }}{% raw %}",
    "\udcff\x00",
    "&lt;b&gt;",
)


def page_of(facts: Overview) -> str:
    return render_page(facts).decode()


def elements(text: str) -> list[Any]:
    """Parse a page strictly, and return its elements. Raises ParseError if it is not valid."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return list(parser.parse(text).iter())


def tags(text: str) -> Iterator[str]:
    return (str(one.tag) for one in elements(text) if isinstance(one.tag, str))


def hostile_overview(name: str) -> Overview:
    error = Failure("rejected", f"{name}: bad", f"because {name}", f"rm {name}")
    record = replace(a_set(name, "rejected"), error=error, id=SetId(f"/srv/{name}", name))
    waiting = replace(a_set(f"{name}2", "waiting"), reason=f"{name} (named in {name}.toml)")
    facts = overview(record, waiting, clouds={name: name}, suspended={}, folders=())
    attempt = replace(an_attempt(name, "rejected"), problem=f"{name}: bad")
    return replace(facts, host=name, recent=(attempt,), folders=(SpoolFolder(f"/srv/{name}"),))


@pytest.mark.parametrize(
    "facts", [full_overview(), overview(), fleet_overview()], ids=["full", "empty", "fleet"]
)
def test_the_page_is_valid_html(facts: Overview) -> None:
    assert "main" in set(tags(page_of(facts)))


def test_what_is_not_valid_html_is_found() -> None:
    with pytest.raises(html5lib.html5parser.ParseError):
        elements(page_of(overview()).replace("</main>", "</b></main>"))


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_is_text_and_nothing_else(name: str) -> None:
    text, harmless = page_of(hostile_overview(name)), page_of(hostile_overview("harmless"))
    assert list(tags(text)) == list(tags(harmless)), "it adds no element"
    assert all(char.isprintable() or char == "\n" for char in text)
    assert ("{{ 7 * 7 }}" in text) == ("{{ 7 * 7 }}" in name), "it is no template"


def test_a_long_text_takes_a_paragraph_at_most() -> None:
    error = Failure("rejected", "x", "y" * 5000, "z")
    text = page_of(overview(replace(a_set("karmic", "rejected"), error=error)))
    assert "y" * LONGEST_TEXT_CHARS in text
    assert "y" * (LONGEST_TEXT_CHARS + 1) not in text


def test_nothing_comes_from_elsewhere_and_nothing_is_executed() -> None:
    text = page_of(full_overview())
    found = elements(text)
    links = [
        value
        for one in found
        for name, value in one.attrib.items()
        if name in ("href", "src", "action", "data")
    ]
    assert sorted(links) == ["data:,", "status.json"]
    assert not {"script", "iframe", "object", "img", "form"} & set(tags(text))
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_a_screen_reader_gets_language_headings_captions_and_headers() -> None:
    found = elements(page_of(full_overview()))
    by_tag: dict[str, list[Any]] = {}
    for one in found:
        by_tag.setdefault(str(one.tag), []).append(one)
    assert by_tag["html"][0].attrib["lang"] == "en"
    assert len(by_tag["h1"]) == 1
    sections = [one.attrib["aria-labelledby"] for one in by_tag["section"]]
    assert [one.attrib["id"] for one in by_tag["h2"]] == sections
    assert len(by_tag["caption"]) == len(by_tag["table"]) == 4
    assert all(one.attrib["scope"] in ("col", "row") for one in by_tag["th"])
    assert by_tag["progress"][0].attrib["aria-label"] == "lucid-server-amd64"


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""

    def light(colour: str) -> float:
        parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def palettes() -> list[Mapping[str, str]]:
    light, dark = page_of(overview()).split("@media (prefers-color-scheme: dark)")
    return [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", part)) for part in (light, dark)]


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_all_text_has_enough_contrast(palette: Mapping[str, str]) -> None:
    pairs = [(text, back) for text in ("text", "dim") for back in ("back", "soft")]
    pairs += [(kind, f"{kind}-back") for kind in ("good", "busy", "late", "bad")]
    assert {pair: contrast(palette[pair[0]], palette[pair[1]]) >= 4.5 for pair in pairs} == dict.fromkeys(
        pairs, True
    )


def test_each_state_has_a_look_and_is_written_as_a_word() -> None:
    text = page_of(full_overview())
    assert [word for word in STATES if f">{word}</span>" not in text] == []


def test_the_page_says_when_it_was_written_and_when_it_is_old() -> None:
    text = page_of(full_overview())
    assert 'Written <time datetime="2026-11-29T11:00:00Z">2026-11-29 11:00:00</time> UTC' in text
    assert "more than 2 min ago" in " ".join(text.split())
    assert '<meta http-equiv="refresh" content="60">' in text


def test_the_last_page_says_that_the_service_ended_and_is_not_loaded_again() -> None:
    text = page_of(replace(full_overview(), is_last=True))
    assert "The service ended then" in text
    assert "refresh" not in text


def test_a_set_at_work_shows_how_far_it_is() -> None:
    text = page_of(full_overview())
    assert '<progress max="4294967296" value="1300000000"' in text
    assert "part 37, 30 %, 84.1 MB/s, 36 s left" in text


def test_a_set_whose_system_is_installed_shows_stage_time_and_console() -> None:
    build = SetBuild("k", (), "running", stage="install", stage_began=NOW - 180, last_line="<b>Copying</b>")
    installed = replace(a_set("web", "waiting"), build=build, reason="its system to be installed")
    text = page_of(overview(installed))
    assert "its system to be installed; install for 3 min: &lt;b&gt;Copying&lt;/b&gt;" in text


def test_what_failed_is_shown_with_its_reason_and_what_to_do() -> None:
    text = page_of(full_overview())
    for words in (
        "win2003.img: checksum does not match",
        "Copy the file again, or correct the sum in the sidecar.",
        "It is tried again at 2026-11-29 11:05:00 UTC (attempt 5).",
        "uecwatchd retry /var/spool/uecwatchd/win2003",
        "Not done: <bdi>the description: this cloud has none</bdi>",
    ):
        assert words in text


def test_a_suspended_cloud_is_shown_with_the_time_of_its_next_probe() -> None:
    text = page_of(full_overview())
    assert "connection refused" in text
    assert '<time datetime="2026-11-29T11:00:42Z">' in text


def test_a_flood_of_one_owner_leaves_the_sets_of_others_on_the_page() -> None:
    flood = [a_set(f"flood{number}", "rejected", owner=BOB) for number in range(2 * MOST_SETS)]
    mine = a_set("karmic", "done", owner=ALICE)
    facts = overview(*flood, mine)
    report, text = json.loads(write_overview(facts)), page_of(facts)
    assert len(report["sets"]) == MOST_SETS
    assert "karmic" in {one["name"] for one in report["sets"]}
    assert report["sets_left_out"] == MOST_SETS + 1
    assert f"{MOST_SETS + 1} are left out" in text
    assert report["states"]["rejected"] == 2 * MOST_SETS, "they are counted all the same"


def test_what_is_going_on_comes_first_and_then_what_needs_attention() -> None:
    running = a_set("b", "working")
    records = (a_set("d", "done"), a_set("w", "waiting"), running, a_set("r", "rejected", minutes=9))
    situation = Situation((*records, a_set("r2", "rejected")), running=frozenset({running.id}))
    assert [one.name for one in choose(situation, 10)] == ["b", "r2", "r", "w", "d"]


def test_a_set_is_at_work_only_while_a_worker_has_it() -> None:
    working = a_set("karmic", "working")
    assert Situation((working,)).state_of(working) == "queued"
    assert Situation((working,), running=frozenset({working.id})).state_of(working) == "working"
    assert Situation((working,), holds={working.id: NOW}).state_of(working) == "held"


def test_the_json_has_the_same_facts_for_programs() -> None:
    report = json.loads(write_overview(full_overview()))
    sets = {one["name"]: one for one in report["sets"]}
    assert report["written"] == "2026-11-29T11:00:00Z"
    assert sets["karmic"]["report"]["ids"]["machine"] == "emi-6BAD4FDD"
    assert sets["lucid-server-amd64"]["report"]["progress"]["seconds_left"] == 36
    assert sets["frozen-for-audit"]["state"] == "held"
    assert sets["win2003"]["report"]["error"]["hint"].startswith("Copy the file")
    assert {one["name"]: one["usable"] for one in report["clouds"]} == {
        "default": True,
        "tenant": False,
        "lab": False,
    }
    assert report["folders"][0] == {"folder": SPOOL, "free_bytes": 75 << 30, "error": None}
    assert [one["outcome"] for one in report["attempts"]] == ["deferred", "done", "rejected"]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_the_json_is_ascii_and_brings_each_name_back(name: str) -> None:
    data = write_overview(hostile_overview(name))
    assert all(byte == 10 or 32 <= byte < 127 for byte in data)
    assert json.loads(data)["sets"][0]["name"] == name


# --- several hosts ----------------------------------------------------------------------------------------


def test_a_page_shows_the_sets_of_all_hosts_and_which_host_is_silent() -> None:
    text = page_of(fleet_overview())
    assert text.count('data-label="Host:"') == 3
    assert "b is silent since 2026-11-29" in text
    assert '<span class="state silent">silent</span>' in text
    assert '<progress max="100" value="25"' in text
    assert "on host c, attempt 1" in text
    assert text.count("8 done") == 1, "seven are elsewhere, and not shown"
    assert "7 are left out" in text
    assert 'data-label="Host:"' not in page_of(full_overview())


def test_the_json_has_the_hosts_and_counts_the_work_of_a_dead_one_as_queued() -> None:
    facts = json.loads(write_overview(fleet_overview()))
    states = {(one["host"], one["folder"], one["name"]): one["state"] for one in facts["sets"]}
    assert states == {
        ("a", SPOOL, "lucid"): "done",
        ("b", SPOOL, "karmic"): "queued",
        ("c", SPOOL, "karmic"): "working",
    }
    assert [(one["name"], one["state"], one["states"]) for one in facts["hosts"]] == [
        ("a", "running", {"done": 1}),
        ("b", "silent", {"queued": 1, "done": 7}),
        ("c", "running", {"working": 1}),
    ]
    assert (facts["states"]["done"], facts["sets_left_out"]) == (8, 7)
    assert [one["host"] for one in facts["attempts"]] == ["c", "a"]
    alone = json.loads(write_overview(full_overview()))
    assert alone["hosts"] == []
    assert {one["host"] for one in alone["sets"]} == {None}


def test_owners_of_one_number_on_two_hosts_have_a_part_of_the_space_each() -> None:
    facts = fleet_overview()
    many = tuple(a_set(f"many{number}", "rejected") for number in range(9))
    chosen = choose(replace(facts, situation=Situation(many)).everywhere, 3)
    assert {one.id.host for one in chosen} == {"", "b", "c"}
