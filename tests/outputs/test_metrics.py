"""The metrics, by Prometheus' own rules, and the alerts and the dashboard that use them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.overviews import (
    BOB,
    NOW,
    SPOOL,
    a_set,
    an_attempt,
    fleet_overview,
    full_overview,
    overview,
)
from uecwatchd.ledger.history import STAGE_BOUNDS_SECONDS, TotalKey, totals_of
from uecwatchd.outputs.metrics import MOST_SERIES, write_metrics
from uecwatchd.outputs.overview import STATES, Overview
from uecwatchd.types import SetId

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "etc" / "monitoring"
RULES = MONITORING / "uecwatchd.rules.yml"
SECONDS = 120


@pytest.fixture(scope="module")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Prometheus' checker: the installed one, or that of Debian's package, which would install a service."""
    if found := shutil.which("promtool"):
        return found
    folder = tmp_path_factory.mktemp("promtool")
    subprocess.run(["apt-get", "download", "-q", "prometheus"], cwd=folder, check=True, timeout=SECONDS)
    (package,) = folder.glob("*.deb")
    unpack = f"dpkg-deb --fsys-tarfile {package} | tar -x ./usr/bin/promtool"
    subprocess.run(["sh", "-c", unpack], cwd=folder, check=True, timeout=SECONDS)
    return str(folder / "usr" / "bin" / "promtool")


def check(promtool: str, *arguments: str, text: bytes = b"") -> str:
    """Run promtool; return what it says. Fails with that if it finds anything."""
    found = subprocess.run(
        [promtool, *arguments], input=text, capture_output=True, check=False, timeout=SECONDS
    )
    talk = (found.stdout + found.stderr).decode()
    assert found.returncode == 0, talk
    return talk


def samples(facts: Overview) -> Mapping[str, Mapping[tuple[str, ...], float]]:
    """Return the values of each metric, by the values of its labels in the order of their names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(write_metrics(facts).decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\buecwatchd_\w+", expression))


def of_dashboard() -> Iterator[str]:
    for panel in json.loads((MONITORING / "uecwatchd.dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")


def of_rules() -> Iterator[str]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def test_published_images_are_counted_by_cloud_and_state() -> None:
    facts = overview(clouds={"default": ""})
    found = samples(replace(facts, images={("default", "older"): 3, ("gone", "current"): 1}))[
        "uecwatchd_images"
    ]
    assert (found["default", "older"], found["gone", "current"], found["default", "removed"]) == (3, 1, 0)


def test_prometheus_finds_no_fault_in_the_metrics(promtool: str) -> None:
    assert check(promtool, "check", "metrics", text=write_metrics(full_overview())) == ""


def test_the_alerts_fire_when_they_have_to_and_not_when_all_is_well(promtool: str) -> None:
    check(promtool, "check", "rules", str(RULES))
    check(promtool, "test", "rules", str(MONITORING / "uecwatchd.rules.test.yml"))


def test_each_alert_has_a_test() -> None:
    tested = (MONITORING / "uecwatchd.rules.test.yml").read_text()
    alerts = [rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]]
    assert [alert for alert in alerts if len(re.findall(rf"\b{alert}\b", tested)) < 2] == []


def test_no_alert_proposes_a_command_with_a_name_that_members_choose() -> None:
    assert re.findall(r"Try: uecwatchd \w+ \{\{", RULES.read_text()) == []


def test_prometheus_understands_the_dashboard(promtool: str, tmp_path: Path) -> None:
    records = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(of_dashboard())]
    rules = tmp_path / "panels.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    assert f"{len(records)} rules found" in check(promtool, "check", "rules", str(rules))


@pytest.mark.parametrize("expressions", [of_rules, of_dashboard], ids=["alerts", "dashboard"])
def test_alerts_and_dashboard_use_metrics_that_exist(expressions: object) -> None:
    there = samples(full_overview()).keys() | samples(fleet_overview()).keys()
    used = set().union(*map(names_in, expressions()))  # type: ignore[operator]
    assert used - there == set()


def test_the_readme_names_each_metric() -> None:
    readme = (ROOT / "README.md").read_text()
    families = text_string_to_metric_families(write_metrics(fleet_overview()).decode())
    totals = {family.name: f"{family.name}_total" for family in families if family.type == "counter"}
    families = text_string_to_metric_families(write_metrics(fleet_overview()).decode())
    names = (totals.get(family.name, family.name) for family in families)
    assert [name for name in names if f"`{name}" not in readme] == []


def test_sets_are_counted_in_every_state() -> None:
    counted = samples(full_overview())["uecwatchd_sets"]
    assert counted == {(state,): 2.0 if state == "done" else 1.0 for state in STATES}


def test_a_suspended_cloud_is_down() -> None:
    up = samples(full_overview())["uecwatchd_cloud_up"]
    assert up == {("default",): 1.0, ("tenant",): 0.0, ("lab",): 0.0}


def test_a_folder_with_unknown_space_has_no_number() -> None:
    found = samples(full_overview())
    assert found["uecwatchd_spool_free_bytes"] == {(SPOOL,): float(75 << 30)}
    assert found["uecwatchd_spool_up"] == {(SPOOL,): 1.0, (f"{SPOOL}-nfs",): 0.0}


def test_the_oldest_set_is_the_one_that_failed_first() -> None:
    again = replace(a_set("a", "deferred", minutes=1), first_failure=NOW - 7200)
    found = samples(overview(again, a_set("b", "deferred", minutes=30)))["uecwatchd_oldest_waiting_seconds"]
    others = dict.fromkeys([("waiting",), ("queued",), ("halted",), ("partly",)], 0.0)
    assert found == {**others, ("deferred",): 7200.0}


def test_failures_are_those_in_the_history_or_one_for_a_refused_set() -> None:
    found = samples(full_overview())["uecwatchd_set_consecutive_failures"]
    assert {name: found[SPOOL, name] for name in ("nightly", "win2003", "tenant", "karmic")} == {
        "nightly": 4.0,
        "win2003": 1.0,
        "tenant": 1.0,
        "karmic": 0.0,
    }


def test_a_success_counts_although_the_files_of_the_set_are_gone() -> None:
    facts = replace(overview(a_set("karmic", minutes=5)), successes={SetId(SPOOL, "archived"): NOW - 60})
    found = samples(facts)["uecwatchd_set_last_success_timestamp_seconds"]
    assert found == {(SPOOL, "archived"): NOW - 60, (SPOOL, "karmic"): NOW - 300}


def test_boots_and_changes_of_images_are_counted_from_zero_on_each_cloud() -> None:
    totals = {TotalKey("boots", "lab", "failed"): 2.0, TotalKey("changes", "gone", "withdrawn"): 1.0}
    found = samples(replace(full_overview(), totals=totals))
    boots, changes = found["uecwatchd_test_boots_total"], found["uecwatchd_image_changes_total"]
    outcomes, clouds = ("passed", "failed", "cloud"), ("default", "tenant", "lab")
    zeros = {(cloud, outcome): 0.0 for cloud in clouds for outcome in outcomes}
    assert boots == {**zeros, ("lab", "failed"): 2.0}
    kinds = ("deprecated", "removed", "rolled-back", "withdrawn")
    zeros = {(kind, cloud): 0.0 for cloud in clouds for kind in kinds}
    assert changes == {**zeros, ("withdrawn", "gone"): 1.0}, "a cloud that was configured keeps its series"


def test_a_histogram_counts_each_stage_up_to_its_bounds() -> None:
    attempt = an_attempt("karmic")  # 4.25 s to read, 128 s to deliver
    found = samples(replace(overview(), totals=totals_of(attempt)))
    buckets = found["uecwatchd_stage_seconds_bucket"]
    delivered = [buckets[str(bound), "deliver the machine image"] for bound in STAGE_BOUNDS_SECONDS]
    assert delivered == [float(bound >= 128) for bound in STAGE_BOUNDS_SECONDS]
    assert buckets["+Inf", "read the files"] == 1.0
    assert found["uecwatchd_stage_seconds_sum"]["read the files",] == 4.25
    assert found["uecwatchd_attempts_total"] == {("default", "done"): 1.0}


def test_a_counter_of_a_cloud_begins_at_zero() -> None:
    facts = overview(clouds={"default": ""})
    assert samples(facts)["uecwatchd_uploaded_bytes_total"] == {("default",): 0.0}
    facts = replace(facts, totals={TotalKey("sent", "default"): 7.0})
    assert samples(facts)["uecwatchd_uploaded_bytes_total"] == {("default",): 7.0}


def test_people_cannot_make_any_number_of_series() -> None:
    flood = [a_set(f"flood{number}", "rejected", owner=BOB) for number in range(3 * MOST_SERIES)]
    successes = {SetId(SPOOL, f"old{number}"): float(number) for number in range(2 * MOST_SERIES)}
    found = samples(replace(overview(*flood, a_set("karmic")), successes=successes))
    for metric in ("uecwatchd_set_consecutive_failures", "uecwatchd_set_last_success_timestamp_seconds"):
        assert len(found[metric]) == MOST_SERIES
        assert (SPOOL, "karmic") in found[metric]
    assert found["uecwatchd_sets_left_out"][()] == 2 * MOST_SERIES + 1


@pytest.mark.parametrize("name", ['a"b', "a\nuecwatchd_sets 7", "\udcff", "a\\", "\u202e\x9b"], ids=range(5))
def test_a_hostile_name_stays_a_label(promtool: str, name: str) -> None:
    record = replace(a_set(name), id=SetId(f"/srv/{name}", name))
    text = write_metrics(overview(record))
    check(promtool, "check", "metrics", text=text)
    assert len(text.splitlines()) == len(
        write_metrics(overview(replace(record, id=SetId(record.folder, "a")))).splitlines()
    )


def test_two_names_that_look_alike_have_a_series_each() -> None:
    facts = overview(a_set("a\x1bb"), a_set("a\\x1bb"))
    assert len(samples(facts)["uecwatchd_set_consecutive_failures"]) == 2


def test_a_host_of_a_fleet_counts_its_own_sets_and_says_which_it_is(promtool: str) -> None:
    facts = fleet_overview()
    counted = samples(facts)
    assert counted["uecwatchd_sets"] == {("a", state): float(state == "done") for state in STATES}
    hosts = {("running",): 2.0, ("silent",): 1.0, ("drained",): 0.0, ("stopped",): 0.0}
    assert counted["uecwatchd_fleet_hosts"] == hosts
    families = list(text_string_to_metric_families(write_metrics(facts).decode()))
    without = {one.name for one in families for sample in one.samples if sample.labels.get("host") != "a"}
    assert without == {"uecwatchd_fleet_hosts"}
    assert "uecwatchd_fleet_hosts" not in samples(full_overview())
    check(promtool, "check", "metrics", text=write_metrics(facts))
