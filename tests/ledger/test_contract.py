"""The rules of `uecwatchd.ledger.api.Ledger`, which any store has to keep.

Each test runs on both. A store needs a function that opens it for a state directory, and that may be called
again for the same directory, as by another process.
"""

import ast
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.support.newer_tables import ADDING, bring_up_to_date
from tests.support.postgres import DatabaseServer
from tests.support.waiting import no_stop
from uecwatchd.config.records import FleetSettings
from uecwatchd.config.retention import RetentionRule
from uecwatchd.errors import Stopped, UecError
from uecwatchd.ledger import postgres, sqlite
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.boots import BootRecord
from uecwatchd.ledger.changes import MOST_TOGETHER
from uecwatchd.ledger.history import (
    ATTEMPTS_OF_A_SET,
    ENTRIES_OF_A_SET,
    AttemptRecord,
    History,
    StageTime,
    StoryEntry,
    TotalKey,
)
from uecwatchd.ledger.outbox import Announced, Message, Outbox
from uecwatchd.ledger.records import (
    AppliedAttributes,
    BuildSource,
    BundleRecord,
    Failure,
    LeavingFile,
    MemberRecord,
    ProgressRecord,
    Request,
    SetBuild,
    SetRecord,
    TargetImage,
    TargetRecord,
    TargetStatus,
)
from uecwatchd.ledger.versions import MOST_GONE, VersionRecord, Versions
from uecwatchd.types import ContentDigest, DetectedCloud, FileStamp, SetId, StoredObject

A, B, C = (ContentDigest(letter * 64) for letter in "abc")
STAMP = FileStamp(1, 2, 3, 4)
CHANGED = FileStamp(1, 2, 9, 5)  # the same file, with other content
KARMIC, LUCID = SetId("/srv/a", "karmic"), SetId("/srv/a", "lucid")
FOLDER = Path("/srv/a")
RECORD = SetRecord(
    KARMIC,
    "stamp",
    "done",
    1.0,
    members=(MemberRecord("machine", "karmic.img", 512, STAMP, A),),
    cloud="near",
    targets=(TargetRecord("near", "b", (TargetImage("machine", "emi-1", "b/k"),)),),
)
BUNDLE = BundleRecord("near", "b", "i" * 64, "machine", A, "karmic-1", "planned", made_for=KARMIC)
UNWRITABLE = "\ud800"  # no database takes half a character


@pytest.fixture(params=["sqlite", "postgres", "tables of a newer version"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Ledger]]:
    """Opens the same ledger each time that it is called."""
    if request.param == "sqlite":
        yield lambda: sqlite.open_ledger(tmp_path)
        return
    server: DatabaseServer = request.getfixturevalue("database_server")
    with server.database() as name:
        fleet = FleetSettings(SecretStr(server.dsn(name)))
        if request.param != "postgres":
            bring_up_to_date(fleet, tmp_path, ADDING)
        yield lambda: postgres.open_ledger(fleet, tmp_path)


@pytest.fixture
def ledger(opened: Callable[[], Ledger]) -> Iterator[Ledger]:
    with closing(opened()) as ledger:
        yield ledger


@contextmanager
def seen_by_another(opened: Callable[[], Ledger]) -> Iterator[Ledger]:
    with closing(opened()) as other:
        yield other


def test_every_operation_of_the_protocol_is_tried_here() -> None:
    tree = ast.parse(Path(__file__).read_bytes())
    tried = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    protocols = (Ledger, History, Outbox, Versions)  # sessions and shared folders have tests of their own
    operations = {name for protocol in protocols for name in vars(protocol) if not name.startswith("_")}
    assert {"put_set", "claim", "check"} <= operations
    assert operations - tried == {"close", "sharing"}  # `closing` calls the former


def test_a_host_that_is_alone_may_go_on(ledger: Ledger) -> None:
    ledger.sessions.begin()
    ledger.sessions.beat()
    ledger.sessions.sure()
    with ledger.claim("near/kernel", check=no_stop) as claim:
        assert claim.settles_in == 0.0
    assert ledger.sessions.same_cloud("near", "here") == "here"
    assert len(ledger.sessions.hosts()) == int(ledger.sessions.is_shared)
    ledger.sessions.end()
    ledger.put_set(RECORD)


def test_the_only_host_sees_no_others(ledger: Ledger) -> None:
    ledger.put_set(RECORD)
    others = ledger.others
    assert others.sets() == others.latest(9, ended_after=0.0) == others.requests() == ()
    assert others.attempts() == others.recent(9) == others.versions() == ()
    assert others.holds() == others.cloud_holds() == others.progress() == others.count() == {}


def test_the_sets_of_one_host_are_those_of_the_fleet(ledger: Ledger) -> None:
    ledger.put_sets([RECORD, replace(RECORD, id=LUCID)])
    assert ledger.sets_of_fleet() == ledger.sets()
    assert len(ledger.sets()) == 2


def test_a_ledger_that_has_met_no_damage_passes_its_check(ledger: Ledger) -> None:
    ledger.put_set(RECORD)
    ledger.check()


# --- all that can be written comes back -------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NAME = TEXT.filter(lambda text: bool(text) and "/" not in text)
SET_ID = st.builds(SetId, NAME.map(lambda name: f"/{name}"), NAME)
MOMENT = st.floats(0, 1e11)
NUMBER = st.integers(0, 2**63 - 1)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
DIGEST = st.builds(
    lambda mark, number: ContentDigest.parse(f"{mark}{number:064x}"),
    st.sampled_from(["", "blocks-"]),
    st.integers(0, 2**256 - 1),
)
FILE_STAMP = st.builds(FileStamp, NUMBER, NUMBER, NUMBER, NUMBER)
ROLES = st.sampled_from([("machine",), ("kernel",), ("kernel", "machine"), ("kernel", "ramdisk", "machine")])


FAILURE = st.builds(Failure, TEXT, TEXT, TEXT, TEXT, TEXT, st.integers(0, 255))
STATES = st.sampled_from(["waiting", "working", "done", "deferred", "halted"])
STATUS = st.builds(
    TargetStatus,
    *(STATES, MOMENT, TEXT, st.none() | MOMENT, TEXT, NUMBER, st.none() | MOMENT, st.none() | FAILURE),
)


BUILD = st.builds(
    SetBuild,
    *(TEXT, st.lists(st.builds(BuildSource, TEXT, TEXT, DIGEST), max_size=2).map(tuple)),
    st.sampled_from(["queued", "running", "done", "failed"]),
    *(st.booleans(), TEXT, MOMENT, MOMENT, TEXT, NUMBER),
)


def images_of(role: Any) -> st.SearchStrategy[TargetImage]:
    attributes = st.none() | st.builds(AppliedAttributes, TEXT, TEXTS, st.booleans())
    return st.builds(TargetImage, st.just(role), TEXT, TEXT, NUMBER, TEXT, attributes)


@st.composite
def sets(draw: st.DrawFn) -> SetRecord:
    roles, clouds = draw(ROLES), sorted(draw(st.sets(TEXT, max_size=2)))
    members = (
        draw(st.builds(MemberRecord, st.just(role), TEXT, NUMBER, FILE_STAMP, DIGEST)) for role in roles
    )
    targets = (
        TargetRecord(
            cloud,
            draw(TEXT),
            tuple(draw(images_of(role)) for role in roles),
            draw(TEXT),
            draw(TEXTS),
            is_current=draw(st.booleans()),
            place=draw(st.integers(0, 9)),
            is_required=draw(st.booleans()),
            status=draw(st.none() | STATUS),
        )
        for cloud in clouds
    )
    return SetRecord(
        draw(SET_ID),
        stamp=draw(TEXT),
        state=draw(STATES),
        since=draw(MOMENT),
        cloud=draw(st.sampled_from(["", *clouds])),
        stage=draw(TEXT),
        attempt=draw(NUMBER),
        next_retry=draw(st.none() | MOMENT),
        reason=draw(TEXT),
        arch=draw(TEXT),
        deferrals=draw(NUMBER),
        first_failure=draw(st.none() | MOMENT),
        members=tuple(members),
        targets=tuple(targets),
        error=draw(st.none() | FAILURE),
        owner=draw(st.none() | NUMBER),
        build=draw(st.none() | BUILD),
    )


BUNDLES = st.builds(
    BundleRecord,
    *(TEXT, TEXT, TEXT, st.sampled_from(["machine", "kernel"]), DIGEST, TEXT),
    st.sampled_from(["planned", "uploaded", "registering", "registered"]),
    *(st.none() | st.binary(max_size=16), st.none() | st.binary(max_size=16), NUMBER, NUMBER, TEXT),
    *(st.none() | SET_ID, st.none() | MOMENT),
    st.lists(st.builds(StoredObject, TEXT, NUMBER, TEXT), max_size=2).map(tuple),
    *(TEXT, TEXT, st.booleans(), st.none() | NUMBER, st.booleans()),
)
PROGRESS = st.builds(ProgressRecord, SET_ID, TEXT, TEXT, NUMBER, NUMBER, NUMBER, MOMENT, MOMENT)
LEAVING = st.builds(LeavingFile, TEXT, TEXT, FILE_STAMP, st.sampled_from(["archive", "delete"]))
CLOUD = st.builds(DetectedCloud, TEXT, TEXT)
# One ledger for all the examples: each replaces what another left under the same key.
many = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(record=sets())
def test_a_set_comes_back_as_it_was_written(opened: Callable[[], Ledger], record: SetRecord) -> None:
    with closing(opened()) as ledger:
        assert ledger.put_set(record) == record
    with closing(opened()) as ledger:
        assert ledger.set(record.id) == record
        assert record in ledger.sets()


@many
@given(record=BUNDLES)
def test_a_bundle_comes_back_as_it_was_written(opened: Callable[[], Ledger], record: BundleRecord) -> None:
    with closing(opened()) as ledger:
        assert ledger.put_bundle(record) == record
        assert ledger.bundle(record.cloud, record.identity) == record
        assert record in ledger.all_bundles()


@many
@given(
    progress=PROGRESS, leaving=LEAVING, since=MOMENT, cloud=st.builds(DetectedCloud, TEXT, TEXT), name=TEXT
)
def test_the_smaller_records_come_back_as_they_were_written(
    opened: Callable[[], Ledger],
    progress: ProgressRecord,
    leaving: LeavingFile,
    since: float,
    cloud: DetectedCloud,
    name: str,
) -> None:
    with closing(opened()) as ledger:
        ledger.put_progress(progress)
        assert ledger.progress()[progress.set_id] == progress
        ledger.put_leaving([leaving])
        assert leaving in ledger.leaving(Path(leaving.folder)) or str(Path(leaving.folder)) != leaving.folder
        ledger.put_cloud(name, cloud)
        assert ledger.clouds()[name] == cloud
        ledger.put_probes({name: since})
        assert ledger.probes() == {name: since}


@many
@given(stamp=FILE_STAMP, digest=DIGEST, sha256=DIGEST)
def test_a_file_has_a_digest_for_each_reading(
    opened: Callable[[], Ledger], stamp: FileStamp, digest: ContentDigest, sha256: ContentDigest
) -> None:
    with closing(opened()) as ledger:
        ledger.drop_digests(stamp)  # of another example
        ledger.put_digest(stamp, "disk", digest)
        assert (ledger.digest(stamp, "disk"), ledger.digest(stamp, "plain")) == (digest, None)
        ledger.put_digest(stamp, "plain", sha256)
        assert (ledger.digest(stamp, "disk"), ledger.digest(stamp, "plain")) == (digest, sha256)


# --- sets -------------------------------------------------------------------------------------------------


def named(folder: str, name: str, **changes: Any) -> SetRecord:
    return replace(RECORD, id=SetId(folder, name), **changes)


def test_sets_are_ordered_by_folder_and_name(ledger: Ledger) -> None:
    ordered = (named("/a", "b"), named("/a", "c"), named("/b", "a"))
    ledger.put_sets(reversed(ordered))
    assert ledger.sets() == ordered
    assert ledger.sets(Path("/a")) == ordered[:2]
    assert ledger.sets(Path("/")) == ()
    assert ledger.count_sets() == 3


def test_a_set_that_is_written_again_replaces_all_that_it_was(ledger: Ledger) -> None:
    ledger.put_set(RECORD)
    moved = replace(RECORD, members=(), cloud="far", targets=(TargetRecord("far"),))
    ledger.put_set(moved)
    assert ledger.sets() == (moved,)
    assert ledger.sets_on("near") == ()


def test_a_set_that_goes_to_another_cloud_keeps_what_it_has_on_the_first(ledger: Ledger) -> None:
    left = replace(RECORD.target, is_current=False)
    moved = replace(RECORD, cloud="far").with_target(left).with_target(TargetRecord("far"))
    ledger.put_set(moved)
    (found,) = ledger.sets()
    assert found.target == TargetRecord("far")
    assert found.target_on("near").images == RECORD.target.images
    assert (ledger.sets_on("near"), ledger.sets_on("far")) == ((), (moved,))


def test_a_set_on_two_clouds_is_found_by_either(ledger: Ledger) -> None:
    failure = Failure("deferred", "what", "why", "hint")
    status = TargetStatus("deferred", 1.0, "deliver", 5.0, "", 2, 0.5, failure)
    both = ledger.put_set(RECORD.with_target(TargetRecord("far", place=1, is_required=False, status=status)))
    assert ledger.sets_on("near") == ledger.sets_on("far") == (both,)
    assert [target.cloud for target in both.current] == ["near", "far"]


def test_a_set_that_is_dropped_leaves_nothing(ledger: Ledger) -> None:
    ledger.put_sets([RECORD, named("/srv/a", "lucid")])
    ledger.drop_set(KARMIC)
    ledger.drop_set(KARMIC)
    assert ledger.set(KARMIC) is None
    assert [one.id for one in ledger.sets_with_image("near", "emi-1")] == [LUCID]
    bare = replace(RECORD, targets=())
    ledger.put_set(bare)
    assert ledger.set(KARMIC) == bare


def test_several_sets_are_written_all_or_none(ledger: Ledger, opened: Callable[[], Ledger]) -> None:
    ledger.put_sets([])
    with pytest.raises((UecError, ValueError)):
        ledger.put_sets([RECORD, named("/srv/a", UNWRITABLE)])
    with pytest.raises((UecError, ValueError)):
        ledger.put_set(RECORD.with_target(TargetRecord("near", UNWRITABLE)))
    with seen_by_another(opened) as other:
        assert other.sets() == ()
    assert ledger.put_set(RECORD) == RECORD, "it can be written to afterwards"


def test_sets_are_found_by_name_cloud_image_and_content(ledger: Ledger) -> None:
    far = named(
        "/srv/b",
        "karmic",
        cloud="far",
        targets=(TargetRecord("far", images=(TargetImage("machine", "emi-1"),)),),
    )
    other = named("/srv/c", "other", members=(MemberRecord("machine", "o.img", 1, STAMP, B),), targets=())
    ledger.put_sets([RECORD, far, other])
    assert ledger.sets_named("karmic") == (RECORD, far)
    assert ledger.sets_on("far") == (far,)
    assert ledger.sets_with_image("near", "emi-1") == (RECORD,)
    assert ledger.sets_with_image("near", "emi-2") == ()
    assert ledger.sets_with_content(A) == (RECORD, far)
    assert ledger.sets_with_content(B) == (other,)
    assert ledger.sets_with_content(C) == ()


def test_a_set_is_found_by_the_image_that_it_gave_attributes(ledger: Ledger) -> None:
    """An attempt begins without an id, and with the attributes that an earlier one applied."""
    image = TargetImage("machine", attributes=AppliedAttributes("emi-7", ("team",)))
    begun = ledger.put_set(RECORD.with_target(TargetRecord("near", "b", (image,))))
    assert ledger.sets_with_image("near", "emi-7") == (begun,)
    assert ledger.sets_with_image("far", "emi-7") == ()


def test_owners_are_written_where_none_is_known(ledger: Ledger) -> None:
    ledger.put_sets([RECORD, named("/srv/a", "lucid", owner=7)])
    ledger.put_bundle(BUNDLE)
    ledger.put_bundle(replace(BUNDLE, identity="j", made_for=LUCID))
    ledger.put_owners(FOLDER, {"karmic": 1000, "lucid": 1000}, proven=["karmic"])
    assert [one.owner for one in ledger.sets()] == [1000, 7]
    assert [one.owner for one in ledger.bundles("near")] == [1000, None]


# --- bundles ----------------------------------------------------------------------------------------------


def test_bundles_are_ordered_by_cloud_and_prefix(ledger: Ledger) -> None:
    ordered = [
        replace(BUNDLE, cloud=cloud, identity=prefix, prefix=prefix)
        for cloud, prefix in (("far", "b"), ("near", "a"), ("near", "c"))
    ]
    for one in reversed(ordered):
        ledger.put_bundle(one)
    assert ledger.all_bundles() == tuple(ordered)
    assert ledger.bundles("near") == tuple(ordered[1:])


def test_a_bundle_that_is_dropped_is_gone(ledger: Ledger) -> None:
    ledger.put_bundle(BUNDLE)
    ledger.drop_bundle(BUNDLE)
    ledger.drop_bundle(BUNDLE)
    assert ledger.bundle("near", BUNDLE.identity) is None


def test_unfinished_bundles_are_found_by_their_set(ledger: Ledger) -> None:
    kernel = ledger.put_bundle(replace(BUNDLE, identity="k", prefix="k", role="kernel", state="uploaded"))
    ledger.put_bundle(BUNDLE)
    ledger.put_bundle(replace(BUNDLE, identity="done", state="registered"))
    ledger.put_bundle(replace(BUNDLE, identity="other", made_for=LUCID))
    ledger.put_bundle(replace(BUNDLE, identity="nobody", made_for=None))
    assert set(ledger.unfinished("near", made_for=KARMIC)) == {BUNDLE, kernel}
    assert ledger.unfinished("near", made_for=KARMIC, role="kernel") == (kernel,)
    assert ledger.unfinished("far", made_for=KARMIC) == ()
    on_trial = ledger.put_bundle(replace(BUNDLE, identity="trial", state="registered", on_trial=True))
    begun = ledger.begun("near", (), made_for=KARMIC)
    assert set(begun.bundles) == {BUNDLE, kernel, on_trial}
    assert set(begun.unpublished(KARMIC, BUNDLE.role)) == {BUNDLE, on_trial}


def test_bundles_are_found_by_their_contents(ledger: Ledger) -> None:
    made = ledger.put_bundle(replace(BUNDLE, state="registered", made_for=LUCID))
    kernel = ledger.put_bundle(replace(made, identity="k", role="kernel"))
    ledger.put_bundle(replace(made, identity="b", digest=B))
    ledger.put_bundle(replace(made, cloud="far"))
    begun = ledger.begun("near", (A, C), made_for=KARMIC)
    assert set(begun.bundles) == {made, kernel}
    assert begun.machines(A) == {made.identity: made}
    assert (begun.get("k"), begun.get("b"), begun.machines(B)) == (kernel, None, {})


def test_a_claim_shows_with_what_was_begun(ledger: Ledger) -> None:
    ledger.sessions.begin()
    ledger.put_bundle(BUNDLE)
    with ledger.claim(BUNDLE.claim, check=no_stop):
        assert ledger.begun("near", (A,), made_for=LUCID).claimed == {BUNDLE.identity}
    assert ledger.begun("near", (A,), made_for=LUCID).claimed == frozenset()


def test_bundles_of_all_clouds_are_found_by_their_image(ledger: Ledger) -> None:
    far, near, _ = (
        ledger.put_bundle(replace(BUNDLE, cloud=cloud, image_id=image_id))
        for cloud, image_id in (("far", "emi-1"), ("near", "emi-1"), ("third", "emi-2"))
    )
    assert ledger.bundles_with_image("emi-1") == (far, near)


def test_sets_are_found_by_the_installation_of_their_disk(ledger: Ledger) -> None:
    builds = {name: SetBuild(key, ()) for name, key in (("a", "k1"), ("b", "k2"), ("c", "k1"))}
    made = [named("/srv/a", name, build=build) for name, build in builds.items()]
    ledger.put_sets([*made, RECORD])
    assert ledger.sets_with_build("k1") == (made[0], made[2])
    assert ledger.sets_with_build("k3") == ()


def test_contents_are_known_by_id_once_they_are_registered(ledger: Ledger) -> None:
    ledger.put_bundle(replace(BUNDLE, state="registering", image_id="emi-1"))
    assert ledger.content("near", "emi-1") is None
    ledger.put_bundle(replace(BUNDLE, state="registered", image_id="emi-1"))
    assert ledger.content("near", "emi-1") == A
    assert ledger.content("far", "emi-1") is None


def test_the_predecessor_is_the_image_registered_last(ledger: Ledger) -> None:
    first, second, third = (
        ledger.put_bundle(
            replace(
                BUNDLE,
                identity=str(at),
                state="registered",
                registered=float(at),
                image_id=f"emi-{at}",
                owner=at,
            )
        )
        for at in (1, 2, 3)
    )
    assert ledger.predecessor("emi-3", cloud="near", made_for=KARMIC) == second
    assert ledger.predecessor("emi-2", cloud="near", made_for=KARMIC) == third
    assert ledger.predecessor("emi-3", cloud="near", made_for=KARMIC, owner=1) == first
    assert ledger.predecessor("emi-3", cloud="near", made_for=LUCID) is None


def test_work_on_one_identity_is_done_by_one_thread_at_a_time(ledger: Ledger) -> None:
    order: list[str] = []

    def second() -> None:
        with ledger.claim("other", check=no_stop), ledger.claim("kernel", check=no_stop):
            order.append("second")

    with ledger.claim("kernel", check=no_stop):
        other = threading.Thread(target=second)
        other.start()
        ledger.put_set(RECORD)  # a claim does not keep others from the ledger
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_a_thread_that_waits_for_a_claim_can_be_stopped(ledger: Ledger) -> None:
    stopped = threading.Event()

    def check() -> None:
        raise Stopped("kernel", "somebody holds it", "Release it.")

    def wait() -> None:
        with pytest.raises(Stopped), ledger.claim("kernel", check=check):
            pass
        stopped.set()

    with ledger.claim("kernel", check=no_stop):
        other = threading.Thread(target=wait)
        other.start()
        assert stopped.wait(10)
        other.join()
    with ledger.claim("kernel", check=no_stop):
        """It is free afterwards."""


# --- what waits for a transaction --------------------------------------------------------------------------


def test_the_last_stage_of_a_set_is_written_with_the_next_transaction(ledger: Ledger) -> None:
    at_work = replace(RECORD, state="working")
    for stage in ("read", "upload"):
        ledger.put_stage(replace(at_work, stage=stage))
    assert ledger.set(KARMIC) is None
    ledger.put_request(Request(LUCID, "retry"))
    assert ledger.set(KARMIC) == replace(at_work, stage="upload")


def test_a_stage_never_comes_after_the_end_of_the_attempt(ledger: Ledger) -> None:
    ledger.put_stage(replace(RECORD, state="working", stage="publish"))
    ledger.put_set(RECORD)
    ledger.put_stage(replace(RECORD, state="working", stage="read"))
    ledger.put_sets([RECORD, replace(RECORD, id=LUCID)])
    ledger.history.flush()
    assert ledger.sets() == (RECORD, replace(RECORD, id=LUCID))
    ledger.put_stage(replace(RECORD, state="working", stage="read"))
    ledger.drop_set(KARMIC)
    ledger.history.flush()
    assert ledger.sets() == (replace(RECORD, id=LUCID),)


def test_changes_that_wait_are_all_written_in_the_order_that_they_need(ledger: Ledger) -> None:
    """One more than go together; two of them write the same rows."""
    for number in range(MOST_TOGETHER + 1):
        ledger.put_stage(named("/srv/a", f"set-{number:03}"))
        ledger.history.count_boot("near", "passed")
    ledger.put_owners(FOLDER, {"set-000": 7}, proven=())
    assert [one.owner for one in ledger.sets()] == [7] + [None] * MOST_TOGETHER
    assert ledger.history.totals() == {TotalKey("boots", "near", "passed"): MOST_TOGETHER + 1}


def test_a_record_is_known_to_be_written_once(ledger: Ledger) -> None:
    ledger.put_set(RECORD)
    assert not ledger.has_written(replace(RECORD, attempt=2))
    ledger.put_set(RECORD)
    assert ledger.has_written(RECORD)
    assert not ledger.has_written(RECORD)


# --- files ------------------------------------------------------------------------------------------------


def test_a_digest_holds_only_as_long_as_the_whole_stamp(ledger: Ledger) -> None:
    ledger.put_digest(STAMP, "file", A)
    ledger.put_digest(STAMP, "plain", B)
    assert (ledger.digest(CHANGED, "file"), ledger.digest(CHANGED, "plain")) == (None, None)
    ledger.put_digest(CHANGED, "file", C)
    assert (ledger.digest(STAMP, "file"), ledger.digest(CHANGED, "file")) == (None, C)
    ledger.drop_digests(STAMP)
    assert (ledger.digest(CHANGED, "file"), ledger.digest(STAMP, "plain")) == (None, None)


def test_digests_of_several_files_are_read_together(ledger: Ledger) -> None:
    ledger.put_digest(STAMP, "file", A)
    ledger.put_digest(STAMP, "plain", B)
    wanted = [(STAMP, "file"), (STAMP, "plain"), (CHANGED, "file"), (STAMP, "disk")]
    assert ledger.digests(wanted) == {(STAMP, "file"): A, (STAMP, "plain"): B}
    assert ledger.digests([]) == {}


def test_files_leave_a_folder_all_or_none(ledger: Ledger) -> None:
    files = [LeavingFile("/srv/a", name, STAMP, "archive") for name in ("b.img", "a.img")]
    ledger.put_leaving([*files, LeavingFile("/srv/b", "c.img", STAMP, "delete")])
    assert [one.path for one in ledger.leaving(FOLDER)] == ["a.img", "b.img"]
    ledger.drop_leaving(FOLDER)
    assert ledger.leaving(FOLDER) == ()
    assert len(ledger.leaving(Path("/srv/b"))) == 1
    with pytest.raises((UecError, ValueError)):
        ledger.put_leaving([*files, LeavingFile("/srv/a", UNWRITABLE, STAMP, "archive")])
    assert ledger.leaving(FOLDER) == ()


# --- what people ask for, and what they are shown ---------------------------------------------------------


def test_all_that_people_ask_for_is_read_together(ledger: Ledger) -> None:
    ledger.put_hold(LUCID, since=3.0)
    ledger.put_hold(KARMIC, since=4.5, cloud="near")
    ledger.put_hold(KARMIC, since=5.0, cloud="far")
    ledger.put_request(Request(LUCID, "withdraw", due=9.5))
    ledger.put_request(Request(KARMIC, "rollback", cloud="far", image_id="emi-1"))
    asked = ledger.asked()
    assert [replace(one, number=0) for one in asked.requests] == [
        Request(LUCID, "withdraw", due=9.5),
        Request(KARMIC, "rollback", cloud="far", image_id="emi-1"),
    ]
    assert (asked.holds, asked.cloud_holds) == ({LUCID: 3.0}, {KARMIC: {"near": 4.5, "far": 5.0}})


def test_requests_are_kept_in_order_until_they_are_done(ledger: Ledger, opened: Callable[[], Ledger]) -> None:
    with seen_by_another(opened) as other:
        other.put_request(Request(KARMIC, "retry"))
        other.put_request(Request(LUCID, "forget", cloud="far"))
        other.put_request(Request(KARMIC, "retry"))
    first, second, third = ledger.requests()
    assert [one.set_id for one in (first, second, third)] == [KARMIC, LUCID, KARMIC]
    assert first.number < second.number < third.number
    ledger.drop_request(first)
    ledger.drop_request(first)
    assert ledger.requests() == (second, third)


def test_a_hold_keeps_the_time_of_the_first(ledger: Ledger) -> None:
    ledger.put_hold(KARMIC, since=5.0)
    ledger.put_hold(KARMIC, since=9.0)
    ledger.put_hold(LUCID, since=7.0)
    assert ledger.holds() == {KARMIC: 5.0, LUCID: 7.0}
    ledger.drop_hold(KARMIC)
    ledger.drop_hold(KARMIC)
    assert ledger.holds() == {LUCID: 7.0}


def test_a_hold_on_one_cloud_is_none_on_the_whole_set(ledger: Ledger) -> None:
    ledger.put_hold(KARMIC, since=5.0, cloud="near")
    ledger.put_hold(KARMIC, since=9.0, cloud="near")
    ledger.put_hold(KARMIC, since=7.0, cloud="far")
    assert (ledger.holds(), ledger.cloud_holds()) == ({}, {KARMIC: {"far": 7.0, "near": 5.0}})
    ledger.drop_hold(KARMIC)
    ledger.drop_hold(KARMIC, cloud="near")
    assert ledger.cloud_holds() == {KARMIC: {"far": 7.0}}


def test_only_the_last_progress_of_a_set_is_kept(ledger: Ledger) -> None:
    first = ProgressRecord(KARMIC, "upload", "karmic.img", 1, 1 << 40, 1, 5.0, 6.0)
    ledger.put_progress(first)
    ledger.put_progress(replace(first, done=2))
    assert ledger.progress() == {KARMIC: replace(first, done=2)}
    ledger.drop_progress(KARMIC)
    ledger.drop_progress(KARMIC)
    assert ledger.progress() == {}


def test_probes_replace_all_that_were_there(ledger: Ledger) -> None:
    ledger.put_probes({"near": 1.0, "far": 2.0})
    ledger.put_probes({"far": 3.0})
    assert ledger.probes() == {"far": 3.0}
    ledger.put_probes({})
    assert ledger.probes() == {}


# --- what happened, and what is told about it -------------------------------------------------------------

ENTRY = StoryEntry(KARMIC, 5.0, "found", "info", "Found the set karmic", {"file": "karmic.img", "bytes": 7})
ATTEMPT = AttemptRecord(
    KARMIC,
    1,
    began=10.0,
    ended=20.0,
    state="done",
    cloud="near",
    stages=(StageTime("read the files", 1.5), StageTime("publish", 0.25)),
    ids={"machine": "emi-1"},
    sent=1 << 40,
    replaced="emi-0",
    problem="",
    request_ids=("r-1", "r-2"),
)


def test_a_story_is_seen_by_others_after_the_next_transaction(
    ledger: Ledger, opened: Callable[[], Ledger]
) -> None:
    with seen_by_another(opened) as other:
        ledger.history.add_entry(ENTRY)
        assert other.history.story(KARMIC) == ()
        ledger.put_set(RECORD)
        assert other.history.story(KARMIC) == (ENTRY,)
        ledger.history.add_entry(replace(ENTRY, moment=6.0))
        ledger.history.flush()
        assert [entry.moment for entry in other.history.story(KARMIC)] == [5.0, 6.0]
        assert other.history.story(LUCID) == ()


def test_a_story_that_no_transaction_followed_is_written_at_the_end(opened: Callable[[], Ledger]) -> None:
    with closing(opened()) as ledger:
        ledger.history.add_entry(ENTRY)
    with closing(opened()) as ledger:
        assert ledger.history.story(KARMIC) == (ENTRY,)


def test_half_a_character_in_a_story_prevents_no_transaction(ledger: Ledger) -> None:
    ledger.history.add_entry(replace(ENTRY, sentence=UNWRITABLE, fields={"file": UNWRITABLE}))
    ledger.put_set(RECORD)
    assert ledger.set(KARMIC) == RECORD
    assert [entry.sentence for entry in ledger.history.story(KARMIC)] == ["?"]


def test_a_transaction_that_fails_loses_no_story(ledger: Ledger) -> None:
    ledger.history.add_entry(ENTRY)
    with pytest.raises((UecError, ValueError)):
        ledger.put_set(replace(RECORD, stage=UNWRITABLE))
    assert ledger.history.story(KARMIC) == (ENTRY,)


def test_attempts_come_back_in_order_and_with_all_that_is_known(ledger: Ledger) -> None:
    later = replace(ATTEMPT, number=2, began=30.0, ended=31.0, state="deferred", ids={}, problem="away: why")
    ledger.history.add_attempt(ATTEMPT)
    ledger.history.add_attempt(later)
    ledger.history.add_attempt(replace(ATTEMPT, set_id=LUCID, ended=25.0))
    assert ledger.history.attempts(KARMIC) == (ATTEMPT, later)
    assert [attempt.set_id for attempt in ledger.history.attempts()] == [KARMIC, KARMIC, LUCID]
    assert ledger.history.successes() == {KARMIC: 20.0, LUCID: 25.0}
    assert ledger.history.names() == (KARMIC, LUCID)


def test_an_attempt_that_has_waited_is_one_and_its_stage_took_as_long_as_the_wait(ledger: Ledger) -> None:
    first = replace(ATTEMPT, state="waiting", stages=(StageTime("boot it once", 2.0),), replaced="", ids={})
    then = replace(ATTEMPT, ended=99.0, stages=(StageTime("boot it once", 1.0), StageTime("publish", 0.5)))
    for run in (first, replace(ATTEMPT, set_id=LUCID), replace(first, ended=60.0), then):
        ledger.history.add_attempt(run)
    (attempt,) = ledger.history.attempts(KARMIC)
    # From 20 to 58, when the second run began, and from 60 to 97.5.
    assert attempt.stages == (StageTime("boot it once", 5.0 + 38.0 + 37.5), StageTime("publish", 0.5))
    assert (attempt.began, attempt.ended, attempt.state, attempt.sent) == (10.0, 99.0, "done", 3 << 40)
    assert (attempt.replaced, attempt.request_ids, attempt.ids) == ("emi-0", ("r-1", "r-2"), ATTEMPT.ids)
    assert [one.set_id for one in ledger.history.recent(9)] == [KARMIC, LUCID]
    totals = ledger.history.totals()
    assert {key.detail: value for key, value in totals.items() if key.what == "attempts"} == {"done": 2.0}


def test_a_wait_belongs_to_no_attempt_at_other_files_or_on_another_cloud(ledger: Ledger) -> None:
    waits = replace(ATTEMPT, state="waiting")
    runs = (waits, replace(ATTEMPT, cloud="far"), replace(ATTEMPT, began=15.0))
    for run in runs:
        ledger.history.add_attempt(run)
    assert ledger.history.attempts() == runs


def test_boots_and_changes_of_images_are_counted(ledger: Ledger) -> None:
    for outcome in ("passed", "failed", "passed"):
        ledger.history.count_boot("near", outcome)
    ledger.history.count_change("near", "rolled-back")
    assert ledger.history.totals() == {
        TotalKey("boots", "near", "failed"): 1.0,
        TotalKey("boots", "near", "passed"): 2.0,
        TotalKey("changes", "near", "rolled-back"): 1.0,
    }


def test_the_last_attempts_at_all_sets_come_newest_first(ledger: Ledger) -> None:
    for name in (KARMIC, LUCID, KARMIC):
        ledger.history.add_attempt(replace(ATTEMPT, set_id=name))
    assert [one.set_id for one in ledger.history.recent(2)] == [KARMIC, LUCID]


def test_failures_are_counted_from_the_last_success_on(ledger: Ledger) -> None:
    for state in ("deferred", "done", "deferred", "queued", "rejected", "halted"):
        ledger.history.add_attempt(replace(ATTEMPT, state=state))
    ledger.history.add_attempt(replace(ATTEMPT, set_id=LUCID))
    assert ledger.history.failures() == {KARMIC: 3}
    ledger.history.add_attempt(replace(ATTEMPT, set_id=LUCID, state="deferred"))
    ledger.history.add_attempt(ATTEMPT)
    assert ledger.history.failures() == {LUCID: 1}


def test_totals_go_on_although_attempts_are_removed(ledger: Ledger) -> None:
    for _ in range(ATTEMPTS_OF_A_SET + 3):
        ledger.history.add_attempt(ATTEMPT)
    ledger.history.drop(KARMIC)
    number = float(ATTEMPTS_OF_A_SET + 3)
    assert ledger.history.totals() == {
        TotalKey("attempts", "near", "done"): number,
        TotalKey("sent", "near"): number * (1 << 40),
        TotalKey("stages", "read the files", "10.0"): number,
        TotalKey("stage seconds", "read the files"): number * 1.5,
        TotalKey("stages", "publish", "1.0"): number,
        TotalKey("stage seconds", "publish"): number * 0.25,
    }


def test_the_oldest_of_too_many_attempts_and_entries_are_removed(ledger: Ledger) -> None:
    for number in range(ENTRIES_OF_A_SET + 20):
        ledger.history.add_entry(replace(ENTRY, moment=float(number)))
    ledger.history.flush()
    for number in range(ATTEMPTS_OF_A_SET + 3):
        ledger.history.add_attempt(replace(ATTEMPT, number=number))
    ledger.history.add_attempt(replace(ATTEMPT, set_id=LUCID))
    kept = ledger.history.attempts(KARMIC)
    assert (len(kept), kept[0].number) == (ATTEMPTS_OF_A_SET, 3)
    assert len(ledger.history.story(KARMIC)) == ENTRIES_OF_A_SET
    assert len(ledger.history.attempts(LUCID)) == 1


def test_a_dropped_history_leaves_that_of_other_sets(ledger: Ledger) -> None:
    for name in (KARMIC, LUCID):
        ledger.history.add_entry(replace(ENTRY, set_id=name))
        ledger.history.add_attempt(replace(ATTEMPT, set_id=name))
    ledger.history.drop(KARMIC)
    assert (ledger.history.story(KARMIC), ledger.history.attempts(KARMIC)) == ((), ())
    assert ledger.history.names() == (LUCID,)


MESSAGE = Message("id-1", KARMIC, "done", 5.0, "command", {"set": "karmic", "emi": "emi-1"})


def test_a_message_and_what_it_announces_are_written_together_or_not_at_all(ledger: Ledger) -> None:
    done = {KARMIC: Announced("done", 4.0)}
    with pytest.raises((UecError, ValueError)):
        ledger.outbox.announce([MESSAGE, replace(MESSAGE, id=UNWRITABLE)], done)
    assert (ledger.outbox.messages(), ledger.outbox.announced()) == ((), {})
    ledger.outbox.announce([MESSAGE, replace(MESSAGE, way="url")], done)
    assert [message.way for message in ledger.outbox.messages()] == ["command", "url"]
    assert ledger.outbox.announced() == done


def test_a_message_stays_until_it_is_dropped_and_keeps_its_tries(ledger: Ledger) -> None:
    ledger.outbox.announce([MESSAGE], {})
    (stored,) = ledger.outbox.messages()
    assert replace(stored, number=0) == MESSAGE
    tried = replace(stored, tries=3, next_try=99.0, problem="no answer")
    ledger.outbox.put_message(tried)
    assert ledger.outbox.messages() == (tried,)
    ledger.outbox.drop_message(tried)
    ledger.outbox.drop_message(tried)
    assert ledger.outbox.messages() == ()


def test_a_new_outcome_replaces_the_announced_one_until_it_is_forgotten(ledger: Ledger) -> None:
    ledger.outbox.announce([], {KARMIC: Announced("deferred", 1.0), LUCID: Announced("done", 2.0)})
    ledger.outbox.announce([], {KARMIC: Announced("done", 3.0)})
    assert ledger.outbox.announced() == {KARMIC: Announced("done", 3.0), LUCID: Announced("done", 2.0)}
    ledger.outbox.drop_announced(LUCID)
    assert ledger.outbox.announced() == {KARMIC: Announced("done", 3.0)}


BOOT = BootRecord("t-1", "near", "emi-1", KARMIC, 5.0, ("i-1",))


def test_a_boot_is_open_until_it_is_dropped_and_gets_its_instance(ledger: Ledger) -> None:
    ledger.boots.put(replace(BOOT, token="t-2", cloud="far", began=6.0))
    assert ledger.boots.put(BOOT) == BOOT
    known = ledger.boots.put(replace(BOOT, instance_id="i-2"))
    assert [boot.token for boot in ledger.boots.open()] == ["t-1", "t-2"]
    assert ledger.boots.open("near") == (known,)
    ledger.boots.drop(known)
    ledger.boots.drop(known)
    assert ledger.boots.open("near") == ()


def test_an_image_has_passed_on_its_cloud_alone(ledger: Ledger) -> None:
    assert ledger.boots.passed("near", "emi-1") is None
    ledger.boots.put_passed("near", "emi-1", 5.0)
    ledger.boots.put_passed("near", "emi-1", 7.0)
    assert (ledger.boots.passed("near", "emi-1"), ledger.boots.passed("far", "emi-1")) == (7.0, None)


def test_a_failure_keeps_the_end_of_a_console(ledger: Ledger) -> None:
    error = Failure("rejected", "a", "b", "c", console=("line", "Kernel panic"))
    record = ledger.put_set(replace(RECORD, error=error))
    assert ledger.set(record.id) == record


# --- versions ---------------------------------------------------------------------------------------------

VERSION = VersionRecord(KARMIC, "near", "emi-1", "machine", "current", published=1.0, since=1.0)
VERSIONS = st.builds(
    VersionRecord,
    *(SET_ID, TEXT, TEXT, st.sampled_from(["machine", "kernel"])),
    st.sampled_from(["current", "older", "deprecated", "withdrawn", "removed"]),
    *(MOMENT, MOMENT, st.none() | MOMENT, st.booleans(), TEXT),
    st.builds(RetentionRule, keep=st.none() | st.integers(1, 9), min_age=st.none() | MOMENT),
)


@many
@given(version=VERSIONS)
def test_a_version_comes_back_as_it_was_written(opened: Callable[[], Ledger], version: VersionRecord) -> None:
    with closing(opened()) as ledger:
        ledger.versions.put_versions([version])
        assert version in ledger.versions.of_set(version.set_id)
        assert version in ledger.versions.of_set(version.set_id, version.cloud)
        assert version in ledger.versions.of_image(version.cloud, version.image_id)
        assert version in ledger.versions.of_cloud(version.cloud)


def test_a_new_version_makes_the_one_before_it_an_older_one(ledger: Ledger) -> None:
    elsewhere = replace(VERSION, cloud="far")
    ledger.versions.publish_version(VERSION)
    ledger.versions.publish_version(elsewhere)
    ledger.versions.publish_version(replace(VERSION, image_id="emi-2", published=5.0, since=5.0))
    newer, older = ledger.versions.of_set(KARMIC, "near")
    assert (newer.image_id, newer.state, newer.replaced_by) == ("emi-2", "current", "")
    assert (older.state, older.since, older.replaced, older.replaced_by) == ("older", 5.0, 5.0, "emi-2")
    assert ledger.versions.of_set(KARMIC, "far") == (elsewhere,)
    assert ledger.versions.sets() == (KARMIC,)


def test_a_version_that_is_published_again_stays_the_only_one(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.versions.publish_version(VERSION)
    assert ledger.versions.of_set(KARMIC) == (VERSION,)
    assert ledger.versions.sets() == ()


def test_a_version_that_is_published_again_keeps_its_times_unless_it_was_gone(ledger: Ledger) -> None:
    again = replace(VERSION, published=9.0, since=9.0)
    ledger.versions.publish_version(VERSION)
    ledger.versions.publish_version(again)
    assert ledger.versions.of_set(KARMIC) == (VERSION,)
    ledger.versions.put_versions([replace(VERSION, state="removed")])
    ledger.versions.publish_version(again)
    assert ledger.versions.of_set(KARMIC) == (again,)


def test_a_publication_may_wait_for_the_record_of_its_set(ledger: Ledger) -> None:
    ledger.versions.publish_later(VERSION)
    ledger.versions.publish_later(replace(VERSION, image_id="emi-2"))
    assert ledger.versions.of_set(KARMIC) == ()
    ledger.put_set(RECORD)
    assert [one.state for one in ledger.versions.of_set(KARMIC)] == ["older", "current"]


def test_versions_that_are_gone_are_limited_and_others_are_not(ledger: Ledger) -> None:
    gone = [
        replace(VERSION, image_id=f"emi-{number}", state="removed", since=float(number))
        for number in range(MOST_GONE + 5)
    ]
    ledger.versions.put_versions([*gone, replace(VERSION, image_id="older", state="older")])
    ledger.versions.put_versions([])
    ledger.versions.publish_version(replace(VERSION, image_id="new"))
    left = {one.image_id for one in ledger.versions.of_set(KARMIC)}
    assert left == {"older", "new", *(one.image_id for one in gone[5:])}


def test_versions_are_counted_by_cloud_and_state(ledger: Ledger) -> None:
    older = replace(VERSION, image_id="emi-0", state="older")
    others = (replace(one, set_id=LUCID, image_id=f"{one.image_id}-2") for one in (VERSION, older))
    ledger.versions.put_versions([VERSION, older, *others, replace(VERSION, cloud="far")])
    assert ledger.versions.count() == {
        ("far", "current"): 1,
        ("near", "current"): 2,
        ("near", "older"): 2,
    }


def test_versions_of_one_cloud_are_dropped_alone(ledger: Ledger) -> None:
    elsewhere = replace(VERSION, cloud="far")
    ledger.versions.put_versions([VERSION, elsewhere])
    ledger.versions.drop_versions(KARMIC, "near")
    assert ledger.versions.of_set(KARMIC) == (elsewhere,)


def test_versions_that_are_dropped_are_gone(ledger: Ledger) -> None:
    lucid = replace(VERSION, set_id=LUCID)
    ledger.versions.put_versions([VERSION, lucid])
    ledger.versions.drop_versions(KARMIC)
    assert ledger.versions.of_image("near", "emi-1") == (lucid,)


def test_a_bundle_is_found_by_its_image_once_that_is_registered(ledger: Ledger) -> None:
    registered = replace(BUNDLE, state="registered", image_id="emi-1")
    ledger.put_bundle(replace(registered, state="registering"))
    assert ledger.bundle_of("near", "emi-1") is None
    ledger.put_bundle(registered)
    assert ledger.bundle_of("near", "emi-1") == registered
    assert ledger.bundle_of("far", "emi-1") is None


def test_buckets_that_were_made_here_are_known(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.put_made_bucket("near", "team")
    assert (ledger.made_buckets("near"), ledger.made_buckets("far")) == ({"team"}, frozenset())
    ledger.drop_made_bucket("near", "team")
    ledger.drop_made_bucket("near", "team")
    assert ledger.made_buckets("near") == frozenset()


def test_a_request_keeps_its_cloud_and_its_time(ledger: Ledger) -> None:
    ledger.put_request(Request(KARMIC, "withdraw", cloud="near", due=7.5))
    (request,) = ledger.requests()
    assert (request.verb, request.cloud, request.due) == ("withdraw", "near", 7.5)
