import pytest

from uecwatchd.cli.check.capabilities import facts
from uecwatchd.clouds.dialects import DIALECTS, EUCA3, UEC, Dialect

UEC_TOLD = (
    "EC2 V2, S3 V2 over the whole path",
    "no image names, filters, tags, HEAD for buckets, prefixes, ACLs",
    "5 buckets of 5 GiB",
    "manifests up to 100 KiB",
    "boots no disk without a kernel",
    "images may be public at first",
)
EUCA3_TOLD = (
    "EC2 V2, S3 V2 over the whole path, none twice",
    "has image names",
    "no filters, tags, HEAD for buckets, prefixes, ACLs",
    "5 buckets",
    "images up to 30 GiB by default",
    "manifests up to 9.537 MiB",
    "boots no disk without a kernel",
    "images may be public at first",
)


@pytest.mark.parametrize(("dialect", "parts"), [(UEC, UEC_TOLD), (EUCA3, EUCA3_TOLD)], ids=["uec", "euca3"])
def test_a_generation_is_reported_in_one_line(dialect: Dialect, parts: tuple[str, ...]) -> None:
    assert facts(dialect) == "; ".join(parts)


def test_every_generation_has_its_line() -> None:
    assert all(facts(dialect).startswith("EC2 V") for dialect in DIALECTS.values())
