"""Parameter with the id of the image in use, in Amazon's parameter store.

Launch templates and stacks read it by its name. The store answers before it has checked the id, so the value
is read back.
"""

from collections.abc import Callable

from botocore.exceptions import ClientError

from uecwatchd.clouds.client import Cloud, make_parameter_client
from uecwatchd.clouds.errors.translate import code_of, translated
from uecwatchd.errors import Deferred
from uecwatchd.system import failpoints

OF_IMAGE = "aws:ec2:image"
# In the name of a parameter, for the name of the set.
PLACEHOLDER = "{name}"
# The check takes a few seconds.
READ_BACK_PAUSES_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0)


def point_parameter(cloud: Cloud, set_name: str, image_id: str, *, sleep: Callable[[float], None]) -> str:
    """Have the parameter of a set hold an image's id; return its name, empty if none is configured.

    Raises Deferred if it does not, and the errors of the cloud's answers.
    """
    name = (cloud.account.latest_parameter or "").replace(PLACEHOLDER, set_name)
    if not name or not cloud.dialect.has_parameters:
        return ""
    store = make_parameter_client(cloud.account)
    doing = f"writing the parameter {name}"
    if _value(store, cloud, name) == image_id:
        return name
    with translated(cloud, doing), failpoints.effect("PutParameter"):
        store.put_parameter(Name=name, Value=image_id, Type="String", DataType=OF_IMAGE, Overwrite=True)
    for pause in READ_BACK_PAUSES_SECONDS:
        sleep(pause)
        if _value(store, cloud, name) == image_id:
            return name
    raise Deferred(
        f"cloud {cloud.name}, {doing}",
        f"it was answered with success, and does not hold {image_id}",
        "The store takes the id of an available image of this region only.",
    )


def _value(store: object, cloud: Cloud, name: str) -> str:
    with translated(cloud, f"reading the parameter {name}"):
        try:
            answer = store.get_parameter(Name=name)  # type: ignore[attr-defined]
        except ClientError as error:
            if code_of(error) == "ParameterNotFound":
                return ""
            raise
    return str((answer.get("Parameter") or {}).get("Value") or "")
