"""Fields of a cloud's list of images beside ids and locations, and whose images are asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from uecwatchd.cli.main import main
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.images import Device, list_images

EMPTY = "<DescribeImagesResponse><imagesSet/></DescribeImagesResponse>"

# As EC2 lists an image of its owner's with everything that there is to be said.
FULL = """<DescribeImagesResponse><imagesSet><item>
<imageId>ami-0a1b2c3d4e5f60718</imageId><imageLocation>amazon/windows</imageLocation>
<imageState>available</imageState><imageOwnerId>000100729354</imageOwnerId>
<imageOwnerAlias>amazon</imageOwnerAlias><isPublic>false</isPublic><platform>windows</platform>
<blockDeviceMapping>
<item><deviceName>/dev/sda1</deviceName><ebs><snapshotId>snap-1</snapshotId><volumeSize>30</volumeSize>
<deleteOnTermination>true</deleteOnTermination><volumeType>io1</volumeType><iops>0</iops></ebs></item>
<item><deviceName>/dev/sdb</deviceName><ebs><snapshotId>snap-2</snapshotId>
<deleteOnTermination>false</deleteOnTermination></ebs></item>
<item><deviceName>xvdca</deviceName><virtualName>ephemeral0</virtualName></item>
</blockDeviceMapping>
<tagSet><item><key>team</key><value>infra</value></item><item><key>bare</key><value/></item></tagSet>
</item></imagesSet></DescribeImagesResponse>"""


def asked(request: Any) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode()))


def test_every_listed_field_of_an_image_is_read(scripted: Callable[[str], Cloud], script: Any) -> None:
    script.says(body=FULL)
    (image,) = list_images(scripted("aws"))
    assert (image.owner, image.owner_alias, image.platform) == ("000100729354", "amazon", "windows")
    assert image.tags == (("team", "infra"), ("bare", ""))
    assert image.devices == (
        Device("/dev/sda1", snapshot="snap-1", size="30", delete_on_termination="true", type="io1", iops="0"),
        Device("/dev/sdb", snapshot="snap-2", delete_on_termination="false"),
        Device("xvdca", virtual_name="ephemeral0"),
    )


@pytest.fixture
def configuration(tmp_path: Path, script: Any, user: Any, cloud_keys: Any) -> Path:
    """A host whose clouds `default` and `other` are the script."""
    (tmp_path / "eucarc").write_text("EC2_ACCESS_KEY=a\nEC2_SECRET_KEY=b\nEC2_USER_ID=000100729354\n")
    certificate, key = user.write(tmp_path, "user")
    sealed, _ = cloud_keys.write(tmp_path, "cloud")
    lines = [
        'dialect = "uec"',
        f'eucarc = "{tmp_path}/eucarc"',
        f'ec2_url = "{script.url}/services/Eucalyptus"',
        f's3_url = "{script.url}/services/Walrus"',
        f'user_cert = "{certificate}"',
        f'user_key = "{key}"',
        f'cloud_cert = "{sealed}"',
    ]
    clouds = [f"[cloud.{name}]\n" + "\n".join(lines) for name in ("default", "other")]
    file = tmp_path / "uecwatchd.toml"
    file.write_text("\n".join([f'[state]\ndir = "{tmp_path}/state"', *clouds]))
    return file


@pytest.mark.parametrize(
    ("more", "owners"), [((), {"self"}), (("--all",), set())], ids=["our own", "all that we may see"]
)
def test_the_verb_lists_our_own_images_by_default(
    configuration: Path, script: Any, more: tuple[str, ...], owners: set[str]
) -> None:
    script.says(body=EMPTY)
    assert main(["images", "--config", str(configuration), *more]) == 0
    (request,) = script.requests
    assert {value for key, value in asked(request).items() if key.startswith("Owner")} == owners


def test_a_refused_listing_is_the_error_of_the_verb(
    configuration: Path, script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    script.says(403, "<Response><Errors><Error><Code>AuthFailure</Code></Error></Errors></Response>")
    assert main(["images", "other", "--json", "--config", str(configuration)]) == 78
    output = capsys.readouterr()
    assert output.out == ""
    assert "cloud other" in output.err


def test_the_json_option_prints_only_json(
    configuration: Path, script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    script.says(body=FULL)
    assert main(["images", "--json", "--config", str(configuration)]) == 0
    output = capsys.readouterr()
    assert [image["id"] for image in json.loads(output.out)] == ["ami-0a1b2c3d4e5f60718"]
    assert output.err == ""
