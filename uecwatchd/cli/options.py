"""Options of each verb, apart from the modules of the verbs.

Help, completion and manual pages can be made from them without loading a verb, a cloud's client or pydantic.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NoReturn, get_args

from uecwatchd.system.text import spelled
from uecwatchd.types import Arch, Role

HOW_NAMED = "its name, or FOLDER/NAME"
BESIDES = "; or read the files beside yours: NAME.uec.error, NAME.uec.json, NAME.uec.log."
# A daemon writes down as often how far it is.
WATCH_SECONDS = 2.0
LEAST_WATCH_SECONDS, MOST_WATCH_SECONDS = 0.1, 86400.0
MOST_BUILDS = 64
MADE_HERE = "here"
COLUMNS = f"""Fields are separated by tabs and may be empty: IMAGE, id, location (BUCKET/MANIFEST), owner,
state, public or private, architecture, type, kernel, ramdisk, platform, root device type, virtualization,
hypervisor. A fifteenth field, "{MADE_HERE}", marks images that this host made. Block devices and tags follow
in separate lines."""


def add_common_options(parser: argparse.ArgumentParser, *, unset: str | None) -> None:
    """Add the options of all verbs. `unset` is the value of an option that is not given."""
    parser.add_argument(
        "--config",
        type=Path,
        default=unset,
        metavar="FILE",
        help="configuration file, instead of /etc/uecwatchd/uecwatchd.toml",
    )
    parser.add_argument(
        "--unit",
        default=unset,
        metavar="NAME",
        help="unit with the environment, credentials and user to use: uecwatchd.service",
    )


def add_no_options(_parser: argparse.ArgumentParser) -> None:
    pass


def add_build_worker_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder of the builds, which the service writes to")
    parser.add_argument(
        "--at-once",
        type=_count,
        default=1,
        metavar="N",
        help="installations at once, each a machine with the memory of its recipe (1)",
    )


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= MOST_BUILDS:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {MOST_BUILDS}")
    return number


def _add_schema(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.add_argument(
        "--schema", action=_Schema, const=verb, help="print the JSON Schema of --json, and exit"
    )


class _Schema(argparse.Action):
    """Option that prints a schema as soon as it is parsed: no configuration is needed for it."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, const: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, const=const, default=argparse.SUPPRESS, help=help)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object
    ) -> NoReturn:
        from uecwatchd.cli.output import put_text
        from uecwatchd.cli.schemas import read_schema

        verb = "versions" if getattr(namespace, "versions", False) else str(self.const)
        put_text(read_schema(verb))
        parser.exit()


def add_once_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    _add_schema(parser, "once")


def add_check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--notify", action="store_true", help="send a test message on each way of [notify]")


def add_status_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", nargs="?", metavar="SET", type=spelled, help=f"{HOW_NAMED}, or a file")
    parser.add_argument("--cloud", metavar="NAME", help="only sets that go there, with their state there")
    _add_host(parser)
    manner = parser.add_mutually_exclusive_group()
    manner.add_argument("--json", action="store_true", help="print the rows as JSON")
    manner.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"show it again every SECONDS (default: {WATCH_SECONDS:g}), until Ctrl-C",
    )
    _add_schema(parser, "status")
    parser.set_defaults(besides=BESIDES)


def _add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="NAME", help="only that one of the hosts with the same ledger")


def _seconds(text: str) -> float:
    """Read the pause of `--watch`."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if LEAST_WATCH_SECONDS <= seconds <= MOST_WATCH_SECONDS:
        return seconds
    between = f"{LEAST_WATCH_SECONDS:g} to {MOST_WATCH_SECONDS:g}"
    raise argparse.ArgumentTypeError(
        f"{text!r} is no number of seconds from {between}; the name of a set stands before --watch"
    )


def add_log_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", type=spelled, help=f"{HOW_NAMED}, or a file of it")
    parser.add_argument("--cloud", metavar="NAME", help="without what is about another cloud")
    parser.add_argument("--json", action="store_true", help="print the entries as JSON")
    _add_schema(parser, "log")
    parser.set_defaults(besides=BESIDES)


def add_history_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "set", nargs="?", metavar="SET", type=spelled, help=f"{HOW_NAMED}, or a file of it; default: all sets"
    )
    parser.add_argument("--cloud", metavar="NAME", help="only those on this cloud")
    _add_host(parser)
    parser.add_argument(
        "--versions", action="store_true", help="the published images instead, with what became of each"
    )
    parser.add_argument("--json", action="store_true", help="print the attempts as JSON")
    _add_schema(parser, "history")
    parser.set_defaults(besides=BESIDES)


def add_verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", type=spelled, help=HOW_NAMED)
    parser.add_argument("--cloud", metavar="NAME", help="only what is there; default: each of its clouds")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def add_retry_options(parser: argparse.ArgumentParser) -> None:
    add_request_options(parser)
    parser.add_argument(
        "--cloud", metavar="NAME", help="only there; default: each of its clouds that it is not done on"
    )


def add_boot_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", type=spelled, help=f"{HOW_NAMED}, or a file of it")
    parser.add_argument(
        "--cloud", metavar="NAME", help="the cloud to boot it on; default: where it went last"
    )
    parser.add_argument(
        "--expect",
        metavar="TEXT",
        help="text of the console that shows that the system is up; default: as the sidecar says, or a login",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON, and no console")
    _add_schema(parser, "boot")


def add_console_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", type=spelled, help=f"{HOW_NAMED}, or a file of it")
    manner = parser.add_mutually_exclusive_group()
    manner.add_argument(
        "--raw",
        action="store_true",
        help="let the machine control this terminal, and give it each key; Ctrl-] leaves",
    )
    manner.add_argument("--vnc", action="store_true", help="print the socket of its screen, for a viewer")


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retry` that other verbs have too."""
    parser.add_argument("set", metavar="SET", type=spelled, help=HOW_NAMED)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_hold_options(parser: argparse.ArgumentParser) -> None:
    add_request_options(parser)
    parser.add_argument("--cloud", metavar="NAME", help="only there: it goes on with its other clouds")


def add_release_options(parser: argparse.ArgumentParser) -> None:
    add_request_options(parser)
    parser.add_argument("--cloud", metavar="NAME", help="only there; default: everywhere")


def add_forget_options(parser: argparse.ArgumentParser) -> None:
    add_request_options(parser)
    parser.add_argument(
        "--cloud",
        metavar="NAME",
        help="only its state and ids there, and its older images; if it still goes there, it begins again",
    )


def add_withdraw_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", type=spelled, help=HOW_NAMED)
    parser.add_argument("--cloud", metavar="NAME", help="only from this cloud; default: from all")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_schema(parser, "withdraw")


def add_rollback_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", type=spelled, help=HOW_NAMED)
    parser.add_argument("--cloud", metavar="NAME", help="only on this cloud; default: on all")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_schema(parser, "rollback")


def add_prune_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "set", nargs="?", metavar="SET", type=spelled, help=f"{HOW_NAMED}; default: all with older images"
    )
    parser.add_argument("--cloud", metavar="NAME", help="only on this cloud; default: on all")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the decisions as JSON")
    _add_schema(parser, "prune")


def add_orphans_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cloud", metavar="NAME", help="only on this cloud; default: on all")
    parser.add_argument("--remove", action="store_true", help="remove them; no daemon may run")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    _add_schema(parser, "orphans")


def add_fleet_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    _add_schema(parser, "fleet")


def add_drain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="its name, as `fleet` lists it")
    parser.add_argument("--undo", action="store_true", help="let it begin new work again")


def add_images_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cloud", metavar="NAME", help="default: the cloud for sets without `clouds`")
    # Without a default, or it would replace the one of the option.
    parser.add_argument(
        "cloud", nargs="?", default=argparse.SUPPRESS, metavar="CLOUD", help="the same, without --cloud"
    )
    parser.add_argument("--all", action="store_true", help="also images of others that we may see")
    parser.add_argument("--made-here", action="store_true", help="only what this host made")
    parser.add_argument("--json", action="store_true", help="print the images as JSON")
    parser.epilog = COLUMNS


def add_bundle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the image")
    parser.add_argument("folder", type=Path, metavar="DIR", help="for the parts and the manifest")
    parser.add_argument("--type", choices=get_args(Role), help="default: from content and name")
    parser.add_argument(
        "--arch", choices=get_args(Arch), metavar="ARCH", help="default: from content, then from the name"
    )
    parser.add_argument("--kernel", type=_id_of("ki"), metavar="ID", help="a machine image's kernel: eki-…")
    parser.add_argument("--ramdisk", type=_id_of("ri"), metavar="ID", help="a machine image's ramdisk: eri-…")
    parser.add_argument(
        "--keep", action="store_true", help="accept a machine image as it is, bootable or not"
    )
    parser.add_argument("--cloud", default="default", metavar="NAME", help="whose certificates to use")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")


def _id_of(kind: Literal["ki", "ri"]) -> Callable[[str], str]:
    """Make the check of an id. It loads pydantic, but only if an id is given."""

    def check(text: str) -> str:
        from uecwatchd.intake.sidecar import is_image_id

        if is_image_id(text) and text[1:3] == kind:
            return text
        raise argparse.ArgumentTypeError(f"{text!r} is not an id like e{kind}-0123ABCD or a{kind}-0123abcd")

    return check


def add_unbundle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="beside its parts")
    parser.add_argument("folder", type=Path, metavar="DIR", help="for the image")
    parser.add_argument("--cloud", default="default", metavar="NAME", help="whose keys to use")
    parser.add_argument(
        "--cloud-key", type=Path, metavar="FILE", help="open it with the cloud's private key instead of ours"
    )
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")


def add_inspect_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=spelled, metavar="FILE|SET", help=f"a file, or a set: {HOW_NAMED}")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def add_sandbox_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8773, help="port on 127.0.0.1; 0 chooses a free one")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="keep its buckets and images here")
    parser.add_argument(
        "--dialect", default="sandbox", metavar="NAME", help="be as strict as that generation"
    )
    parser.add_argument(
        "--no-administrator", action="store_true", help="give its user the rights of a normal user"
    )
    parser.add_argument("--boot", action="store_true", help="boot instances under QEMU, if it is installed")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="make something go wrong; may be repeated",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def dialects_and_faults() -> str:
    """Return the end of the help of `sandbox`. It loads the rules of the embedded cloud."""
    from uecwatchd.sandbox.faults import described
    from uecwatchd.sandbox.rules.generations import RULES

    lines = "\n".join(f"  {line}" for line in described())
    return f"dialects: {', '.join(RULES)}\n\nfaults:\n{lines}"


def add_demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="drop these instead")
    parser.add_argument(
        "--install", action="store_true", help="drop a recipe: its system is installed from a CD first"
    )
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="do it in this new folder (default: a temporary one)"
    )


def add_setup_options(parser: argparse.ArgumentParser) -> None:
    cloud = parser.add_argument_group("the cloud", "Without any of these, a terminal is asked.")
    cloud.add_argument(
        "--eucarc", type=Path, metavar="FILE", help="take everything from this file of the cloud"
    )
    cloud.add_argument("--cloud", default="default", metavar="NAME", help="its name in the configuration")
    cloud.add_argument("--dialect", metavar="NAME", help="its generation; without it the cloud is asked")
    cloud.add_argument("--ec2-url", metavar="URL", help="address of EC2")
    cloud.add_argument("--s3-url", metavar="URL", help="address of S3")
    cloud.add_argument("--region", metavar="NAME", help="name of the region")
    cloud.add_argument("--account", metavar="NUMBER", help="account number")
    cloud.add_argument("--access-key", metavar="KEY", help="access key")
    cloud.add_argument(
        "--secret-key-file", metavar="FILE", help='file with the secret key; "-": standard input'
    )
    cloud.add_argument("--user-cert", type=Path, metavar="FILE", help="certificate of the account")
    cloud.add_argument("--user-key", type=Path, metavar="FILE", help="private key of the account")
    cloud.add_argument("--cloud-cert", type=Path, metavar="FILE", help="certificate of the cloud")
    cloud.add_argument(
        "--ca-bundle", type=Path, metavar="FILE", help="authorities of the server's certificate"
    )
    people = parser.add_argument_group("people")
    people.add_argument(
        "--member", action="append", default=[], metavar="USER", help="may drop images; may be repeated"
    )
    people.add_argument(
        "--operator", action="append", default=[], metavar="USER", help="may use the verbs; may be repeated"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--remove", action="store_true", help="stop the service, and undo a setup; data stay")
    parser.add_argument(
        "--purge",
        action="store_true",
        help="with --remove: also delete the configuration, /var/lib/uecwatchd with the ledger, and"
        " /var/cache/uecwatchd; a folder elsewhere that [state] names stays",
    )
