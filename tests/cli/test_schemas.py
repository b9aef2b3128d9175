"""Output of `--json`, compared with the schemas of the package."""

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support.boots import quick_boots
from tests.support.host import Host
from tests.support.published_sets import lose_ledger, publish_several
from tests.support.spool_files import drop_image
from uecwatchd.cli.schemas import SCHEMAS, read_schema
from uecwatchd.cli.status.rows import Row
from uecwatchd.cli.status.text import row_json
from uecwatchd.cli.verbs import VERBS
from uecwatchd.images.guest.summary import ImageSummary, ReadinessFinding
from uecwatchd.ledger.records import (
    Failure,
    MemberRecord,
    ProgressRecord,
    SetRecord,
    TargetImage,
    TargetRecord,
)
from uecwatchd.types import ContentDigest, FileStamp, SetId


def check(verb: str, value: Any) -> None:
    validator = Draft202012Validator(json.loads(read_schema(verb)))
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)] == []


@pytest.mark.parametrize("verb", SCHEMAS)
def test_a_schema_is_valid_and_accepts_nothing_more_than_it_names(verb: str) -> None:
    schema = json.loads(read_schema(verb))
    Draft202012Validator.check_schema(schema)
    is_list = schema["type"] == "array"
    assert (schema["items"] if is_list else schema)["additionalProperties"] is False
    assert Draft202012Validator(schema).is_valid([]) == is_list
    assert not Draft202012Validator(schema).is_valid([{}] if is_list else {})


@pytest.mark.parametrize("verb", SCHEMAS)
def test_a_schema_is_printed_without_a_configuration(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from uecwatchd.cli.main import main

    words = ["history", "--versions"] if verb == "versions" else [verb]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--schema", "--config", "/nonexistent"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == read_schema(verb)


def test_every_verb_that_shows_sets_has_a_schema() -> None:
    assert SCHEMAS.keys() <= {"versions", *(verb.name for verb in VERBS)}


def test_what_becomes_of_images_has_the_promised_form(host: Host) -> None:
    quick_boots(host)
    host.configure(f"{host.config.read_text()}\n[retention]\nkeep = 2\n")
    publish_several(host, 3)
    published = {}
    for verb, *words in (
        ("boot", "karmic"),
        ("prune", "--dry-run"),
        ("withdraw", "karmic", "--dry-run"),
        ("rollback", "karmic", "--yes"),
        ("withdraw", "karmic", "--yes"),
        ("orphans",),
    ):
        published[verb] = json.loads(host.ask(verb, *words, "--json")[0])
        check(verb, published[verb])
    assert published["boot"]["outcome"] == "passed"
    versions = json.loads(host.ask("history", "karmic", "--versions", "--json")[0])
    check("versions", versions)
    assert [one["state"] for one in versions] == ["removed", "withdrawn", "older"]
    assert versions[2]["passed"] is False
    assert host.ask("history", "karmic")[0].count(" on cloud default, published ") == 3
    lose_ledger(host)
    found = json.loads(host.ask("orphans", "--json")[0])
    assert found
    check("orphans", found)


def test_the_output_of_a_real_spool_has_the_promised_form(host: Host) -> None:
    """A finished and a refused set, one that waits, one that is new, and files in no set."""
    drop_image(host.spool, "karmic", random.Random(1).randbytes(4096))  # noqa: S311
    (host.spool / "broken.img").write_bytes(b"no image")
    (host.spool / "natty.toml").write_text('machine = "natty.img"\n')
    ended = host.run("once", "--json")
    rows = json.loads(ended.stdout)
    assert {row["state"] for row in rows} == {"done", "rejected", "waiting"}
    check("once", rows)
    drop_image(host.spool, "lucid", random.Random(2).randbytes(4096))  # noqa: S311
    for name in ("notes.txt", ".hidden"):
        (host.spool / name).write_text("x")
    host.ask("hold", "karmic")
    rows = json.loads(host.ask("once", "--json", code=65)[0])
    assert {row["name"]: row["state"] for row in rows}["karmic"] == "held"
    check("once", rows)
    rows = json.loads(host.ask("status", "--json")[0])
    assert {row["state"] for row in rows} >= {"held", "rejected", "waiting", "misfit", "ignored"}
    check("status", rows)
    for verb, names in (("log", ["karmic"]), ("log", ["broken"]), ("history", [])):
        found = json.loads(host.ask(verb, *names, "--json")[0])
        assert found
        check(verb, found)


KARMIC = SetId("/s", "karmic")
MEMBER = MemberRecord(
    "machine",
    "karmic.qcow2",
    512,
    FileStamp(1, 2, 3, 4),
    ContentDigest("blocks-" + "ab" * 32),
    container="qcow2",
    reading="disk partition 1",
    origin="made of a tarball",
    prepared=("removed a file",),
)
FULL = SetRecord(
    KARMIC,
    "stamp",
    "deferred",
    1.0,
    attempt=2,
    next_retry=5.0,
    members=(MEMBER,),
    cloud="c",
    targets=(TargetRecord("c", "b", (TargetImage("machine", "emi-1", "b/k"),), remarks=("no tags",)),),
    error=Failure("deferred", "what", "why", "hint", request_id="r-1"),
    inspection=ImageSummary("disk", findings=(ReadinessFinding("virtio", "error", "none", "Add it."),)),
)
PROGRESS = ProgressRecord(KARMIC, "upload", "karmic.img", 1, 10, 1, 1.0, 3.0)


@pytest.mark.parametrize(
    "row",
    [
        Row(KARMIC, "working", "upload", replace(FULL, state="working"), progress=PROGRESS),
        Row(KARMIC, "deferred", "what", FULL, ("a",), hint="hint", probe_at=3.0),
        Row(KARMIC, "waiting", "for it", to_go=1.25, held_since=2.0),
        Row(KARMIC, "working", "x", progress=replace(PROGRESS, total=0, part=0, file="", moment=1.0)),
    ],
    ids=["working", "deferred", "settling", "unknown amounts"],
)
def test_a_row_with_everything_in_it_has_the_promised_form(row: Row) -> None:
    check("status", [json.loads(json.dumps(row_json(row)))])
