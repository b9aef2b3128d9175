"""A server of forks of a process that has the program imported: one for each line of JSON on its input.

It answers at once with the child's pid, and then with how it ended.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from uecwatchd.cli.main import VERBS
from uecwatchd.clouds.client import make_client


def serve(child: Callable[[dict[str, Any]], int]) -> None:
    for verb in VERBS:  # what each child needs is loaded once, and what botocore reads of its models
        verb.load()
    for service in ("s3", "ec2"):
        make_client(service, region_name="x", aws_access_key_id="x", aws_secret_access_key="x")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()
