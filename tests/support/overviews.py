"""An overview with sets in every state, as a page shows it."""

from dataclasses import replace

from uecwatchd.errors import CloudAway, Halted
from uecwatchd.events import Progress
from uecwatchd.ledger.history import AttemptRecord, StageTime, TotalKey, totals_of
from uecwatchd.ledger.other_hosts import HostCount
from uecwatchd.ledger.records import Failure, SetRecord, TargetImage, TargetRecord
from uecwatchd.ledger.sessions import HostSession
from uecwatchd.ledger.standing import seen_from
from uecwatchd.outputs.fleet_overview import FleetOverview
from uecwatchd.outputs.overview import Overview
from uecwatchd.outputs.progress import TrackedProgress
from uecwatchd.outputs.situation import Situation, SpoolFolder
from uecwatchd.types import SetId

NOW = 1_795_950_000.0
SPOOL = "/var/spool/uecwatchd"
ALICE, BOB = 1001, 1002
ON_DEFAULT = TargetRecord(
    "default",
    "uec-images",
    (
        TargetImage("kernel", "eki-0EB036EE"),
        TargetImage("ramdisk", "eri-FAE5103C"),
        TargetImage("machine", "emi-6BAD4FDD"),
    ),
)


def a_set(name: str, state: str = "done", *, minutes: float = 5.0, owner: int = ALICE) -> SetRecord:
    """Return the record of a set whose state began so many minutes before `NOW`."""
    record = SetRecord(SetId(SPOOL, name), "s", state, NOW - 60 * minutes, attempt=1, owner=owner)  # type: ignore[arg-type]
    return replace(record, cloud="default", targets=(ON_DEFAULT,)) if state == "done" else record


def an_attempt(name: str, state: str = "done", *, minutes: float = 5.0, number: int = 1) -> AttemptRecord:
    """Return an attempt that ended so many minutes before `NOW`."""
    ended = NOW - 60 * minutes
    done = AttemptRecord(
        SetId(SPOOL, name),
        number,
        ended - 132.5,
        ended,
        state,  # type: ignore[arg-type]
        "default",
        stages=(StageTime("read the files", 4.25), StageTime("deliver the machine image", 128.0)),
        sent=1_480_000_000,
    )
    if state == "done":
        return replace(
            done, ids={"machine": "emi-6BAD4FDD", "kernel": "eki-0EB036EE"}, replaced="emi-11AA22BB"
        )
    return replace(done, problem=f"cloud default: {name} is refused by it", request_ids=("req-7f3",))


def overview(*records: SetRecord, **facts: object) -> Overview:
    """Return an overview of these sets at `NOW`; `facts` are other fields of a situation."""
    return Overview(NOW, "buildhost", "0.1.0", Situation(records, **facts))  # type: ignore[arg-type]


def _every_state() -> tuple[SetRecord, ...]:
    working, halted = a_set("lucid-server-amd64", "working", minutes=2), a_set("tenant", "halted", minutes=40)
    rejected, deferred = a_set("win2003", "rejected", minutes=190), a_set("nightly", "deferred", minutes=9)
    waiting = replace(a_set("hardy", "waiting", minutes=25), reason="vmlinuz-2.6.24-16 (named in hardy.toml)")
    return (
        replace(working, stage="deliver the machine image"),
        replace(
            halted,
            error=Failure("halted", "cloud tenant", "it does not know the access key", "Correct its eucarc."),
        ),
        replace(
            rejected,
            error=Failure(
                "rejected",
                "win2003.img: checksum does not match",
                "declared 5d41402abc4b2a76b9719d911017c592, found 7d793037a0760186574b0282f2f435e7",
                "Copy the file again, or correct the sum in the sidecar.",
            ),
        ),
        replace(
            deferred,
            next_retry=NOW + 300,
            attempt=4,
            error=Failure("deferred", "cloud default", "it answered 503 (SlowDown)", "Just wait."),
        ),
        a_set("frozen-for-audit", "done", minutes=2000),
        _partly_done(),
        a_set("maverick", "queued", minutes=1),
        waiting,
        a_set("karmic", "done", minutes=14),
        a_set("intrepid", "withdrawn", minutes=4000),
        replace(
            a_set("jaunty", "done", minutes=3000, owner=BOB),
            targets=(replace(ON_DEFAULT, remarks=("the description: this cloud has none",)),),
        ),
    )


def _partly_done() -> SetRecord:
    """Return a set that is done on one of its two clouds."""
    done = a_set("intrepid", "done", minutes=50).with_target(TargetRecord("tenant", place=1))
    error = Failure("rejected", "intrepid: cloud tenant takes no images for arm64", "it said so", "Ask it.")
    return replace(seen_from(done, "tenant"), state="rejected", error=error)


def full_overview() -> Overview:
    """Return an overview with a set in every state, and a cloud and a folder with trouble."""
    records = _every_state()
    working, held = records[0].id, records[4].id
    totals: dict[TotalKey, float] = {}
    recent = (
        an_attempt("nightly", "deferred", minutes=9, number=4),
        an_attempt("karmic", minutes=14),
        an_attempt("win2003", "rejected", minutes=190),
    )
    for attempt in recent:
        for key, amount in totals_of(attempt).items():
            totals[key] = totals.get(key, 0.0) + amount
    gone = Halted(f"{SPOOL}-nfs", "it is not there", "Mount it.")
    situation = Situation(
        records,
        {held: NOW - 7200},
        frozenset({working}),
        {"default": "UEC and Eucalyptus 1.6 to 2.0", "tenant": "Eucalyptus 4.4 to 5.1", "lab": ""},
        {
            "tenant": Halted("cloud tenant", "it does not know the access key", "Correct its eucarc."),
            "lab": CloudAway("cloud lab", "connection refused", "It is asked again by itself."),
        },
        {},
        (SpoolFolder(SPOOL), SpoolFolder(f"{SPOOL}-nfs", gone)),
    )
    upload = Progress(working, "upload", "lucid-server-amd64.img", 1_300_000_000, 4_294_967_296, 37)
    return Overview(
        NOW,
        "buildhost",
        "0.1.0",
        situation,
        probes={"tenant": NOW + 900, "lab": NOW + 42},
        folders=(SpoolFolder(SPOOL, None, 75 << 30), SpoolFolder(f"{SPOOL}-nfs", gone)),
        progress={working: TrackedProgress(upload, NOW - 40, 84.1e6)},
        recent=recent,
        successes={SetId(SPOOL, "karmic"): NOW - 14 * 60, SetId(SPOOL, "jaunty"): NOW - 3000 * 60},
        failures={SetId(SPOOL, "nightly"): 4, SetId(SPOOL, "win2003"): 1},
        totals=totals,
    )


def fleet_overview() -> Overview:
    """Return an overview of host a in a fleet, whose host b is silent with a set at work, and c works."""
    a, b, c = (HostSession(name, is_drained=False, now=NOW, working=1, began=NOW - 900) for name in "abc")
    sessions = (
        replace(a, version="0.1.0", lease_until=NOW + 20),
        replace(b, version="0.1.0", lease_until=NOW - 60),
        replace(c, version="0.1.0", lease_until=NOW + 20),
    )
    working = a_set("karmic", "working")
    stuck, busy = (replace(working, id=working.id.of_host(host)) for host in "bc")
    upload = Progress(busy.id, "upload", "karmic.img", 25, 100, 3)
    fleet = FleetOverview(
        "a",
        sessions,
        Situation((stuck, busy), running=frozenset([busy.id])),
        {HostCount("b", "working"): 1, HostCount("b", "done"): 7, HostCount("c", "working"): 1},
        {busy.id: TrackedProgress(upload, NOW - 40, 1.0)},
        (replace(an_attempt("hardy", minutes=1), set_id=SetId(f"c:{SPOOL}", "hardy")),),
    )
    return replace(overview(a_set("lucid")), recent=(an_attempt("lucid"),), fleet=fleet)
