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


def sandbox(arguments: argparse.Namespace) -> int:
    cloud_class = sandbox_class()
    from uecwatchd.sandbox.faults import Faults
    from uecwatchd.sandbox.rules.generations import RULES

    if arguments.dialect not in RULES:
        say(f"uecwatchd: --dialect {arguments.dialect}: the embedded cloud knows no such generation")
        say(f"  Use one of: {', '.join(RULES)}.")
        return os.EX_USAGE
    options = {
        "dialect": arguments.dialect,
        "administrator": not arguments.no_administrator,
        "boot": arguments.boot,
    }
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
