"""The verb `boot`: a test boot by hand, of an image that is registered.

Standard output has the console of the instance as it comes, standard error what happens to the instance.
"""

import argparse
import os
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace

from uecwatchd.cli.meant_set import meant_set
from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.status.survey import survey
from uecwatchd.clouds.connect import connect
from uecwatchd.clouds.images import Image, find_image
from uecwatchd.config.load import load
from uecwatchd.config.records import CloudSettings, Settings
from uecwatchd.delivery.boot_lock import claim_boots
from uecwatchd.delivery.test_boot import BootResult, BootTools, boot_image
from uecwatchd.errors import Halted, Rejected, Stopped
from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.open import open_ledger
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.standing import by_cloud
from uecwatchd.outputs.result_files import place_json
from uecwatchd.service.attempt.boot import boot_request
from uecwatchd.system.signals import PATIENCE_SECONDS, Stop, handle_stop_signals
from uecwatchd.system.text import shell_word

# As the manual of the cloud writes it, for the reader to put in the name of a key.
ANY_KEY = "mykey"


def boot(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    stop = Stop()
    handle_stop_signals(stop.set, code=os.EX_TEMPFAIL, patience=PATIENCE_SECONDS)
    ready = survey(settings, now=time.time()).ready
    with (
        closing(open_ledger(settings)) as ledger,
        meant_set(arguments.set, ledger, settings, past=False) as meant,
    ):
        record = meant.record
        assert record  # noqa: S101 (it was found by it)
        record = replace(record, id=meant.shown)
        there = (one.cloud for one in by_cloud(record) if one.image_id("machine"))
        name = arguments.cloud or next(there, record.target.cloud)
        expect = _expected(record, ready) if arguments.expect is None else arguments.expect
        configured = _configured(settings, name)
        image_id = record.target_on(name).image("machine").image_id
        if not image_id:
            why = f"it has no machine image on cloud {name or '(none)'}"
            raise Rejected(f"{record.name}: there is nothing to boot", why, "See: uecwatchd status.")
        tools = _tools(settings, name, ledger, stop, silent=arguments.json)
        image = _find_image(tools, image_id)
        with claim_boots(settings.state.dir, tools.cloud.account):
            result = boot_image(boot_request(record.id, image, configured, expect=expect), tools)
        host = ledger.sessions.host
    return _report(record, image, configured, result, host=host if arguments.json else None)


def _expected(record: SetRecord, ready: Iterable[ImageSet]) -> str:
    """Return what the sidecar of a set expects on the console, if the set is still in its folder."""
    return next((found.sidecar.expect or "" for found in ready if found.id == record.id), "")


def _configured(settings: Settings, name: str) -> CloudSettings:
    if name not in settings.clouds:
        known = ", ".join(sorted(settings.clouds)) or "none"
        raise Halted(f"there is no cloud named {name}", f"the configuration has {known}", "Name one of them.")
    return settings.clouds[name]


def _tools(settings: Settings, name: str, ledger: Ledger, stop: Stop, *, silent: bool) -> BootTools:
    def check() -> None:
        if stop.is_set():
            hint = "Its end was asked for. The service, or the next boot, sees that it has ended."
            raise Stopped("the test boot", "it was interrupted", hint)

    def sleep(seconds: float) -> None:
        stop.wait(seconds)
        check()

    def show(lines: Sequence[str], _last: str) -> None:
        for line in () if silent else lines:
            put(line)

    return BootTools(
        cloud=connect(settings.clouds[name], uploads=1, before=ledger.clouds(), stop=stop),
        boots=ledger.boots,
        state_folder=settings.state.dir,
        host=socket.gethostname(),
        tell=say,
        show=show,
        check=check,
        sleep=sleep,
        now=time.time,
        monotonic=time.monotonic,
    )


def _find_image(tools: BootTools, image_id: str) -> Image:
    image = find_image(tools.cloud, image_id)
    if image is None:
        what, why = f"{image_id}: there is nothing to boot", f"cloud {tools.cloud.name} does not list it"
        raise Rejected(what, why, "To register it again: uecwatchd retry.")
    return image


def _report(
    record: SetRecord, image: Image, settings: CloudSettings, result: BootResult, *, host: str | None
) -> int:
    """Print the outcome; with `host`, the name of this one or nothing, also as JSON."""
    command = run_command(image.id, settings)
    if host is not None:
        place = place_json(record.id, host)
        fields = {"set": record.name, **place, "cloud": settings.name, "image": image.id}
        fields |= {"instance": result.instance_id, "outcome": result.verdict.outcome}
        more = {"why": result.verdict.why, "seconds": result.seconds, "console": list(result.console)}
        put_json({**fields, **more, "next": command if result.has_passed else None})
    outcome = {"passed": "has passed", "failed": "has failed", "cloud": "could not be tested"}
    say(f"{record.name}: {image.id} {outcome[result.verdict.outcome]}: {result.verdict.why}")
    if result.has_passed:
        say(f"To start an instance of it: {command}")
        return os.EX_OK
    return Rejected.exit_code if result.verdict.outcome == "failed" else os.EX_TEMPFAIL


def run_command(image_id: str, settings: CloudSettings) -> str:
    """Return the command of euca2ools that starts an instance of an image."""
    words = ["euca-run-instances", image_id, "-k", settings.key_name or ANY_KEY]
    if settings.instance_type:
        words += ["-t", settings.instance_type]
    for group in settings.security_groups:
        words += ["-g", group]
    if settings.subnet:
        words += ["-s", settings.subnet]
    return " ".join(map(shell_word, words))
