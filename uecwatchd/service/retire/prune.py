"""Retention: older images of a set are deprecated, and leave the cloud with their bundles.

After each step everything is read again, and decided again. An error ends the run for its account: nothing
leaves from there after it. Other clouds are not kept from what is due.
"""

from dataclasses import replace

from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.deprecation import deprecate
from uecwatchd.clouds.objects import remove_empty_bucket
from uecwatchd.config.records import Outcome
from uecwatchd.delivery.image_users import bundles_booting
from uecwatchd.delivery.retire import RetireDecision, decide, next_step
from uecwatchd.delivery.version_facts import read_facts, read_use
from uecwatchd.errors import Deferred, Stopped, UecError, words_of
from uecwatchd.events import Kind
from uecwatchd.outputs.notify.facts import Facts, pruned_facts
from uecwatchd.service.retire.context import Retirement, RetirementOutcome
from uecwatchd.service.retire.rules import obstacle_of, rule_of
from uecwatchd.service.retire.take_out import boot_bundles, take_out

# Each step is about another image. A set with more than these has them removed in the next run.
MOST_STEPS = 1000


def prune(job: Retirement) -> RetirementOutcome:
    """Take the due steps for the older images of one set, on each cloud up to its first error."""
    ledger, tools = job.tools.ledger, job.tools
    failed, news, stopped = dict[str, UecError](), list[tuple[Outcome, Facts]](), False
    versions = ledger.versions.of_set(job.id)
    clouds = sorted({one.cloud for one in versions if one.is_in_cloud})
    for name in clouds:
        if job.request.cloud not in ("", name) or not tools.clouds.is_configured(name):
            continue
        if not rule_of(job.id, name, ledger, tools.retention_of).is_on:
            continue
        if any(is_same_account(tools.clouds, name, other) for other in (*job.closed, *failed)):
            continue
        if any(one.state != "current" and one.is_in_cloud for one in versions if one.cloud == name):
            removed = list[str]()
            try:
                _prune_on(job, tools.clouds.enter(name), removed)
            except Stopped:
                stopped = True
            except UecError as error:
                failed[name] = words_of(error)
            if removed:
                news.append(("pruned", pruned_facts(job.id, name, removed)))
        if stopped:
            break
    return RetirementOutcome(failed=failed, news=tuple(news), was_stopped=stopped)


def is_same_account(clouds: CloudAccess, one: str, other: str) -> bool:
    """Tell if two names are of one cloud, or of one account on it."""
    return one == other or (clouds.is_configured(other) and clouds.is_same_account(one, other))


def _prune_on(job: Retirement, cloud: Cloud, removed: list[str]) -> None:
    """Take all steps on one cloud, and note the removed images as they leave."""
    for _ in range(MOST_STEPS):
        job.check_stop()
        step = next_step(_decisions(job, cloud))
        if step is None:
            break
        _take(job, cloud, step)
        if step.step == "remove":
            removed.append(step.version.image_id)
    _remove_unused_boot(job, cloud)


def _decisions(job: Retirement, cloud: Cloud) -> tuple[RetireDecision, ...]:
    tools, ledger = job.tools, job.tools.ledger
    versions = ledger.versions.of_set(job.id, cloud.name)
    return decide(
        read_facts(versions, cloud, ledger, host=tools.host),
        rule_of(job.id, cloud.name, ledger, tools.retention_of),
        now=tools.clocks.now(),
        can_deprecate=cloud.dialect.deprecates,
        obstacle=obstacle_of(job.id, cloud.name, ledger),
    )


def _take(job: Retirement, cloud: Cloud, step: RetireDecision) -> None:
    version, tools = step.version, job.tools
    if step.step == "deprecate":
        deprecate(cloud, version.image_id, now=tools.clocks.now)
        job.tell(Kind.WITHDRAWN, f"deprecated {version.image_id} on cloud {cloud.name}: {step.why}")
        put = replace(version, state="deprecated", since=tools.clocks.now())
        tools.ledger.versions.put_versions([put])
        tools.ledger.history.count_change(cloud.name, "deprecated")
        return
    bundle = tools.ledger.bundle_of(cloud.name, version.image_id)
    use = read_use(cloud, [version.image_id])
    if why := take_out(job, cloud, version.image_id, used=use.of):  # it was free a moment ago
        what = f"{version.image_id} on cloud {cloud.name}"
        raise Deferred(what, why, "It is looked at again at the next run.")
    tools.ledger.versions.put_versions([replace(version, state="removed", since=tools.clocks.now())])
    tools.ledger.history.count_change(cloud.name, "removed")
    job.tell(Kind.WORKING, f"removed {version.image_id}: {step.why}")
    if bundle:
        prune_bucket(job, cloud, bundle.bucket)


def _remove_unused_boot(job: Retirement, cloud: Cloud) -> None:
    """Remove the kernels and ramdisks of the set that no image of it starts with any more."""
    ledger = job.tools.ledger
    if obstacle_of(job.id, cloud.name, ledger):
        return
    current = {image.image_id for image in job.record.target_on(cloud.name).images} if job.record else set()
    unused = [one for one in boot_bundles(job, cloud.name) if one.image_id not in current]
    unused = [one for one in unused if not bundles_booting(one, ledger)]
    if unused:
        use = read_use(cloud, [one.image_id for one in unused])
        for bundle in unused:
            take_out(job, cloud, bundle.image_id, used=use.of)
            prune_bucket(job, cloud, bundle.bucket)


def prune_bucket(job: Retirement, cloud: Cloud, bucket: str) -> None:
    """Delete a bucket that this host has made, if it is empty and no bundle is on its way there."""
    ledger, tools = job.tools.ledger, job.tools
    if bucket == tools.configured_bucket or bucket not in ledger.made_buckets(cloud.name):
        return
    if any(one.bucket == bucket for one in ledger.bundles(cloud.name)):
        return
    if remove_empty_bucket(cloud, bucket):
        job.tell(Kind.WITHDRAWN, f"deleted the empty bucket {bucket} on cloud {cloud.name}")
        ledger.drop_made_bucket(cloud.name, bucket)
