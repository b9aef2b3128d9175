"""A client we did not write and that is not boto3."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

RCLONE = shutil.which("rclone", path=f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}")


@pytest.mark.skipif(RCLONE is None, reason="rclone is not installed")
@pytest.mark.parametrize("v2", ["true", "false"], ids=["version-2", "version-4"])
def test_rclone_copies_there_and_back(v2: str, cloud: Any, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    (source / "below").mkdir(parents=True)
    (source / "a b+c.txt").write_bytes(b"odd name")
    (source / "below" / "large").write_bytes(os.urandom(300_000))
    environ = {
        "PATH": os.environ["PATH"],
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_CLOUD_TYPE": "s3",
        "RCLONE_CONFIG_CLOUD_PROVIDER": "Other",
        "RCLONE_CONFIG_CLOUD_ENDPOINT": cloud.s3_url,
        "RCLONE_CONFIG_CLOUD_ACCESS_KEY_ID": cloud.identity.access_key,
        "RCLONE_CONFIG_CLOUD_SECRET_ACCESS_KEY": cloud.identity.secret_key,
        "RCLONE_CONFIG_CLOUD_FORCE_PATH_STYLE": "true",
        "RCLONE_CONFIG_CLOUD_V2_AUTH": v2,
    }
    bucket = f"cloud:rclone-{v2}"
    for here, there in ((str(source), bucket), (bucket, str(back))):
        command = [str(RCLONE), "--retries=1", "--low-level-retries=1", "copy", here, there]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for path in ("a b+c.txt", "below/large"):
        assert (back / path).read_bytes() == (source / path).read_bytes()
