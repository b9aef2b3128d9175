"""Checks of everything that the service needs, each with what to do.

Nothing is changed, with one exception: in our own bucket a tiny object is stored and deleted again, because a
right to write cannot be known in another way. After a failure, the other checks are still made.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import datetime

from uecwatchd.cli.check.builds import examine_builds
from uecwatchd.cli.check.cloud import examine_cloud
from uecwatchd.cli.check.finding import Finding, bad
from uecwatchd.cli.check.host import examine_configuration, examine_folder, examine_state
from uecwatchd.cli.check.members import examine_members
from uecwatchd.cli.check.outputs import examine_output
from uecwatchd.cli.check.programs import examine_programs
from uecwatchd.cli.check.unit import examine_unit, makes, unless_bound
from uecwatchd.cli.unit.path_access import Need
from uecwatchd.cli.unit.systemd import Unit
from uecwatchd.clouds.objects import check_bucket_name
from uecwatchd.config.records import Settings
from uecwatchd.config.sharing import shared_folders
from uecwatchd.errors import Halted, UecError
from uecwatchd.intake.sidecar import read_defaults
from uecwatchd.ledger.open import read_ledger
from uecwatchd.system.internal_errors import InternalError, as_internal_error
from uecwatchd.system.signals import NEVER, Stop


def examine(
    settings: Settings,
    *,
    clock: Callable[[], datetime],
    unit: Unit | None = None,
    wanted: tuple[Need, ...] = (),
    stop: Stop = NEVER,
    send: bool = False,
) -> Iterator[Finding]:
    """Make all checks. After a `stop` the findings mean nothing.

    `clock` returns the time with its zone, for the comparison with the clouds. `wanted` is the result of
    `needs` for the service of `unit`. With `send`, a test message is sent on each way.
    """
    if unit:
        yield from examine_unit(unit, wanted)
    yield from examine_configuration(settings)
    bucket = yield from _examine_default_bucket(settings)
    yield from _examine_spool(settings, unit)
    state = examine_state(settings, made=bool(unit and makes(unit, settings.state.dir)))
    yield from _in_words(str(settings.state.dir), state)
    for setting, folder in settings.outputs.folders().items():
        yield from _in_words(setting, unless_bound(unit, folder, examine_output(setting, folder)))
    yield from _in_words("installations", examine_builds(settings.install, asked_for=_asked_for(settings)))
    yield from _in_words("hooks and messages", examine_programs(settings, send=send))
    if not settings.clouds:
        hint = "Add [cloud.default] to the configuration; see its example."
        yield Finding("bad", "no cloud is configured", hint, Halted.exit_code)
    sealed = _sealed(settings)
    for cloud in settings.clouds.values():
        found = examine_cloud(
            cloud,
            bucket=bucket,
            sources=settings.spool.sources_of(cloud.name),
            clock=clock,
            stop=stop,
            sealed=sealed,
        )
        yield from _in_words(f"cloud {cloud.name}", found)


def _examine_default_bucket(settings: Settings) -> Generator[Finding, None, str | None]:
    """Check the name of the bucket for sets that name none, and return it; None if it is wrong."""
    try:
        bucket = read_defaults(settings.defaults).bucket
        check_bucket_name(bucket, from_config=True)
    except UecError as error:
        yield bad(error)
        return None
    return bucket


def _examine_spool(settings: Settings, unit: Unit | None) -> Iterator[Finding]:
    for folder in settings.spool.folders:
        found = examine_folder(folder, is_shared=folder in shared_folders(settings.spool))
        yield from _in_words(str(folder), unless_bound(unit, folder, found))
        policy = settings.spool.policy_of(folder)
        yield from _in_words(str(folder), examine_members(folder, policy, clouds=settings.clouds))


def _in_words(what: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings. An unexpected error becomes a finding too, the last one of its part."""
    try:
        with as_internal_error(what):
            yield from findings
    except InternalError as error:
        yield bad(error)


def _asked_for(settings: Settings) -> frozenset[str] | None:
    """Return the keys of the builds of all sets; None if the ledger cannot be read."""
    with suppress(UecError):
        if ledger := read_ledger(settings):
            with closing(ledger):
                return frozenset(one.build.key for one in ledger.sets() if one.build)
        return frozenset()
    return None


def _sealed(settings: Settings) -> Mapping[str, int]:
    """Return how many images this host has registered with each pair of certificates."""
    with suppress(UecError):
        if ledger := read_ledger(settings):
            with closing(ledger):
                return Counter(one.sealed for one in ledger.all_bundles() if one.state == "registered")
    return {}
