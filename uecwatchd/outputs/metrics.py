"""Metrics for Prometheus, as a file for the textfile collector of node_exporter: no port and no login.

Counters and the histogram are the totals in the ledger, so they continue after a restart and a change of this
file. They begin at zero with a new ledger, which Prometheus takes for the restart of a counter.
At most two time series belong to one set, and the number of sets with any is limited: people choose names.
"""

import platform
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, get_args

from uecwatchd.ledger.history import STAGE_BOUNDS_SECONDS, BootOutcome, ImageChange, TotalKey
from uecwatchd.ledger.sessions import HostState
from uecwatchd.ledger.standing import PARTLY
from uecwatchd.ledger.versions import MOST_GONE, VersionState
from uecwatchd.outputs.overview import Overview, began_to_wait, choose, count_states, last_successes
from uecwatchd.system.extras import optional_library
from uecwatchd.system.text import printable
from uecwatchd.types import SetId

if TYPE_CHECKING:
    from prometheus_client.core import Metric

METRICS_FILE = "uecwatchd.prom"
# Ten times what a busy team has. Each may become a time series that Prometheus keeps for weeks.
MOST_SERIES = 1000
# States of sets that are not finished, and wait for a person, a cloud or a worker.
UNFINISHED_STATES = ("waiting", "queued", "deferred", "halted", PARTLY)


def write_metrics(overview: Overview) -> bytes:
    """Return the metrics in Prometheus' text format. Raises Halted if the library for it is missing."""
    with optional_library("metrics", what="outputs.metrics: cannot write the metrics"):
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.registry import Collector

    class OverviewCollector(Collector):
        """Collector of one overview."""

        def collect(self) -> Iterable["Metric"]:
            parts = (_of_service, _of_states, _of_sets, _of_work)
            yield from (_with_host(one, overview) for part in parts for one in part(overview))
            yield from _of_fleet(overview)

    registry = CollectorRegistry()
    registry.register(OverviewCollector())
    return generate_latest(registry)


def _with_host(family: "Metric", overview: Overview) -> "Metric":
    """Label series with their host in a fleet: its sets are counted there, and on no other host."""
    if host := overview.fleet.host:
        family.samples = [one._replace(labels={**one.labels, "host": host}) for one in family.samples]
    return family


def _of_fleet(overview: Overview) -> Iterator["Metric"]:
    """Yield what all hosts of a fleet say alike."""
    from prometheus_client.core import GaugeMetricFamily

    if not overview.fleet.host:
        return
    hosts = GaugeMetricFamily(
        "uecwatchd_fleet_hosts",
        "Number of hosts in each state; each host says the same about all.",
        labels=["state"],
    )
    for state in get_args(HostState):
        hosts.add_metric([state], sum(one.state == state for one in overview.fleet.hosts))
    yield hosts


def _of_service(overview: Overview) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    situation = overview.situation
    build = {"version": overview.version, "python": platform.python_version()}
    yield InfoMetricFamily("uecwatchd_build", "Version of the program.", value=build)
    yield GaugeMetricFamily(
        "uecwatchd_written_timestamp_seconds",
        "When this file was written; at least once a minute while the service runs.",
        value=overview.moment,
    )
    up = GaugeMetricFamily(
        "uecwatchd_cloud_up", "1 if a cloud can be used, 0 if it is suspended.", labels=["cloud"]
    )
    for cloud in situation.clouds:
        up.add_metric([cloud], float(cloud not in situation.suspended))
    yield up
    readable = GaugeMetricFamily(
        "uecwatchd_spool_up", "1 if a spool folder could be scanned.", labels=["folder"]
    )
    free = GaugeMetricFamily(
        "uecwatchd_spool_free_bytes", "Free space on the disk of a spool folder.", labels=["folder"]
    )
    for folder in overview.folders:
        readable.add_metric([printable(folder.path)], float(folder.error is None))
        if folder.free_bytes is not None:
            free.add_metric([printable(folder.path)], folder.free_bytes)
    yield from (readable, free)


def _of_states(overview: Overview) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    situation = overview.situation
    states = GaugeMetricFamily("uecwatchd_sets", "Number of sets in each state.", labels=["state"])
    for state, number in count_states(situation).items():
        states.add_metric([state], number)
    yield states
    oldest = GaugeMetricFamily(
        "uecwatchd_oldest_waiting_seconds",
        "For how long the oldest set in a state is not done.",
        labels=["state"],
    )
    for state in UNFINISHED_STATES:
        waits = (began_to_wait(one) for one in situation.records if situation.state_of(one) == state)
        oldest.add_metric([state], max(0.0, overview.moment - min(waits, default=overview.moment)))
    yield oldest


def _of_sets(overview: Overview) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    situation = overview.situation
    success = GaugeMetricFamily(
        "uecwatchd_set_last_success_timestamp_seconds",
        f"When a set was last registered; for the {MOST_SERIES} sets with the latest success.",
        labels=["set", "folder"],
    )
    for set_id, moment in last_successes(overview, MOST_SERIES):
        success.add_metric(_labels(set_id), moment)
    yield success
    failures = GaugeMetricFamily(
        "uecwatchd_set_consecutive_failures",
        f"Failed attempts at a set since its last success; for at most {MOST_SERIES} sets.",
        labels=["set", "folder"],
    )
    chosen = choose(situation, MOST_SERIES)
    for record in chosen:
        # A set that was refused before any attempt has failed once as well.
        number = max(overview.failures.get(record.id, 0), record.error is not None)
        failures.add_metric(_labels(record.id), number)
    yield failures
    yield GaugeMetricFamily(
        "uecwatchd_sets_left_out",
        "Sets without a series of their own, because there are too many.",
        value=len(situation.records) - len(chosen),
    )


def _labels(set_id: SetId) -> list[str]:
    """Return name and folder as labels. Two sets never have the same: Prometheus would refuse both."""
    return [printable(text.replace("\\", "\\\\")) for text in (set_id.name, set_id.folder)]


def _of_work(overview: Overview) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    totals, clouds = overview.totals, overview.situation.clouds
    attempts = CounterMetricFamily(
        "uecwatchd_attempts",
        "Attempts at sets that have ended, by the state after them.",
        labels=["cloud", "state"],
    )
    sent = CounterMetricFamily(
        "uecwatchd_uploaded_bytes", "Bytes that went to the buckets of a cloud.", labels=["cloud"]
    )
    boots = CounterMetricFamily(
        "uecwatchd_test_boots",
        "Test boots of sets that have ended: passed, failed, or cloud for a failure of the cloud.",
        labels=["cloud", "outcome"],
    )
    changes = CounterMetricFamily(
        "uecwatchd_image_changes",
        "Published images that were deprecated, removed or withdrawn, and returns to an older one.",
        labels=["cloud", "change"],
    )
    families = {"attempts": attempts, "boots": boots, "changes": changes}
    for key, value in sorted((_zeros(clouds) | dict(totals)).items()):
        if family := families.get(key.what):
            family.add_metric([key.label, key.detail], value)
        elif key.what == "sent":
            sent.add_metric([key.label], value)
    yield from (attempts, sent, boots, changes, _of_images(overview))
    stages = HistogramMetricFamily(
        "uecwatchd_stage_seconds", "How long the stages of attempts took.", labels=["stage"]
    )
    for key, seconds in sorted(totals.items()):
        if key.what == "stage seconds":
            stages.add_metric([printable(key.label)], _buckets(overview, key.label), seconds)
    yield stages


def _zeros(clouds: Iterable[str]) -> dict[TotalKey, float]:
    """Return the totals that each configured cloud has from the beginning, so that a first one is seen."""
    zeros = dict[TotalKey, float]()
    for cloud in clouds:
        zeros[TotalKey("sent", cloud)] = 0.0
        zeros |= {TotalKey("boots", cloud, one): 0.0 for one in get_args(BootOutcome)}
        zeros |= {TotalKey("changes", cloud, one): 0.0 for one in get_args(ImageChange)}
    return zeros


def _of_images(overview: Overview) -> "Metric":
    """Return the number of published images. A cloud that is no longer configured keeps its series."""
    from prometheus_client.core import GaugeMetricFamily

    images = GaugeMetricFamily(
        "uecwatchd_images",
        f"Published images in use, older, or gone; of those that are gone the last {MOST_GONE} of each set.",
        labels=["cloud", "state"],
    )
    none = {(cloud, state): 0 for cloud in overview.situation.clouds for state in get_args(VersionState)}
    for (cloud, state), number in sorted({**none, **overview.images}.items()):
        images.add_metric([cloud, state], number)
    return images


def _buckets(overview: Overview, stage: str) -> list[tuple[str, float]]:
    """Return the upper bounds of a histogram, each with the number of stages up to it."""
    bounds = [*map(str, STAGE_BOUNDS_SECONDS), "inf"]
    counts = (overview.totals.get(TotalKey("stages", stage, bound), 0.0) for bound in bounds)
    return list(zip([*bounds[:-1], "+Inf"], accumulate(counts), strict=True))
