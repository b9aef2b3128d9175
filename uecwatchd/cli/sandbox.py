"""The verb `sandbox`: the embedded test cloud, to try the service without a real cloud."""

import argparse
import os
import sys
import tempfile
import threading
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from uecwatchd.cli.output import flush, put, say
from uecwatchd.errors import Halted
from uecwatchd.system.signals import ENDING, handle_signals
from uecwatchd.system.text import shell_word


def add_sandbox_options(verb: Any) -> None:
    verb.add_argument("--port", type=int, default=8773, help="port on 127.0.0.1; 0 chooses a free one")
    verb.add_argument("--dir", type=Path, help="keep its buckets and images here")
    verb.add_argument("--dialect", default="sandbox", metavar="NAME", help="be as strict as that generation")
    verb.add_argument(
        "--no-administrator", action="store_true", help="give its user the rights of a normal user"
    )
    verb.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="make something go wrong; may be repeated",
    )
    verb.formatter_class = argparse.RawDescriptionHelpFormatter
    verb.appendix = _dialects_and_faults


def sandbox(arguments: argparse.Namespace) -> int:
    cloud_class = sandbox_class()
    from uecwatchd.sandbox.faults import Faults
    from uecwatchd.sandbox.rules.generations import RULES

    if arguments.dialect not in RULES:
        say(f"uecwatchd: --dialect {arguments.dialect}: the embedded cloud knows no such generation")
        say(f"  Use one of: {', '.join(RULES)}.")
        return os.EX_USAGE
    options = {"dialect": arguments.dialect, "administrator": not arguments.no_administrator}
    faults = Faults.parse(arguments.fault)
    folder = arguments.dir or Path(tempfile.mkdtemp(prefix="uecwatchd-sandbox-"))
    ended = threading.Event()
    handle_signals(ENDING, ended.set)
    with cloud_class(folder, port=arguments.port, faults=faults, **options) as cloud:
        put(f"EC2_URL={cloud.ec2_url}")
        put(f"S3_URL={cloud.s3_url}")
        put(f"eucarc={cloud.eucarc}")
        flush()
        say(f"The embedded cloud keeps everything in {folder}. End it with Ctrl-C.")
        ended.wait()
    return os.EX_OK


def _dialects_and_faults() -> str:
    from uecwatchd.sandbox.faults import described
    from uecwatchd.sandbox.rules.generations import RULES

    lines = "\n".join(f"  {line}" for line in described())
    return f"dialects: {', '.join(RULES)}\n\nfaults:\n{lines}"


def sandbox_class() -> Any:
    try:
        from uecwatchd.sandbox.server import Sandbox
    except ImportError as error:
        why = f"the Python package {error.name} is not installed"
        raise Halted("the embedded cloud", why, f"Try: {installed_by()}") from error
    return Sandbox


def installed_by() -> str:
    """Return the command that installs the extra `sandbox` for this Python."""
    if sys.prefix == sys.base_prefix:  # the distribution's Python, which pip may not change
        return "apt-get install python3-werkzeug"
    wanted = (line.partition(";") for line in requires("uecwatchd") or ())
    named = [shell_word(name.strip()) for name, _, when in wanted if "sandbox" in when]
    as_root = "" if os.access(sys.prefix, os.W_OK) else "sudo "
    return f"{as_root}{shell_word(sys.executable)} -m pip install {' '.join(dict.fromkeys(named))}"
