"""The recipe of an installation: its values, its mistakes, and what does not fit together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.config.documents import Malformed
from uecwatchd.install.recipe import MIB, InstallRecipe, read_recipe, write_recipe

ISO = {"iso": "mini.iso", "disk": "2G"}
LAYER = {"base": "jaunty", "run": ["true"]}


def test_an_iso_and_a_disk_are_enough() -> None:
    recipe = read_recipe(ISO)
    assert recipe == InstallRecipe(iso="mini.iso", disk=2048 * MIB)
    assert (recipe.network, recipe.medium, recipe.keep) == ("none", None, True)


def test_all_values_are_read() -> None:
    table = {
        **ISO,
        "memory": "1G",
        "cpus": 2,
        "answers": "answers.txt",
        "answers_as": "disk",
        "label": "ANSWERS",
        "kernel": "/casper/vmlinuz",
        "initrd": "casper/initrd",
        "arguments": "console=ttyS0",
        "drivers": "virtio-win.iso",
        "disk_bus": "ide",
        "second_disk": "scsi",
        "network": "user",
        "time_limit": "90s",
        "expect": "READY",
        "keep": False,
    }
    recipe = read_recipe(table)
    assert (recipe.memory, recipe.kernel, recipe.time_limit) == (1024 * MIB, "casper/vmlinuz", 90.0)
    assert recipe.files == {"iso": "mini.iso", "answers": "answers.txt", "drivers": "virtio-win.iso"}


@pytest.mark.parametrize(
    ("name", "medium"),
    [
        ("preseed.cfg", "initrd"),
        ("karmic.seed", "initrd"),
        ("ks.cfg", "disk"),
        ("server.ks", "disk"),
        ("user-data", "cidata"),
        ("noble.autoinstall", "cidata"),
        ("noble.yaml", "cidata"),
        ("winnt.sif", "floppy"),
        ("Autounattend.xml", "cdrom"),
        ("answers", "disk"),
    ],
)
def test_the_name_of_the_answers_tells_how_they_are_handed_over(name: str, medium: str) -> None:
    assert InstallRecipe(answers=name).medium == medium
    assert InstallRecipe(answers=name, answers_as="floppy").medium == "floppy"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iso": None}, "install needs iso, the image of an installation CD, or base, another image"),
        ({"base": "x"}, "install has iso and base"),
        ({"disk": None}, 'install needs disk, the size of the new disk, such as disk = "5G"'),
        ({"disk": "5"}, 'disk must be a number with a unit, such as "512M" or "5G"'),
        ({"disk": 5}, "disk must be a number with a unit"),
        ({"disk": "1K"}, "disk must be at least"),
        ({"disk": "999T"}, "disk must be at most"),
        ({"memory": "1M"}, "memory must be at least"),
        ({"cpus": True}, "cpus must be a whole number"),
        ({"cpus": 0}, "cpus must be at least 1"),
        ({"iso": "../x.iso"}, "is a path, not the name of a file"),
        ({"kernel": "../../etc/passwd"}, "is not a path in the ISO"),
        ({"kernel": "a\nb"}, "is not a path in the ISO"),
        ({"arguments": "quiet"}, "install.arguments is for a kernel: name kernel too"),
        ({"initrd": "initrd"}, "install.initrd is for a kernel"),
        ({"answers_as": "disk"}, "install.answers_as is about answers, and there are none"),
        ({"answers": "preseed.cfg"}, "install.answers go to an initrd: name kernel and initrd"),
        ({"answers": "a", "label": "a b"}, "is not a label of letters and digits"),
        ({"answers": "a", "label": "ABCDEFGHIJKL"}, "label is longer than 11 characters"),
        ({"answers": "user-data", "label": "X"}, "install.label is for answers on a disk or CD"),
        ({"answers": "winnt.sif", "drivers": "f.img"}, "are both floppies"),
        ({"answers": "mini.iso"}, "install.iso and install.answers are the same file, mini.iso"),
        ({"answers": "a\\b.cfg"}, r'answers = "a\b.cfg" cannot be on a disk or floppy: its name has "\"'),
        ({"disk": "1M"}, "disk must be at least 4M"),
        ({"answers": "a:b", "answers_as": "floppy"}, 'cannot be on a disk or floppy: its name has ":"'),
        ({"answers": "q?.cfg."}, 'its name has "?"'),
        ({"answers": "q.cfg."}, "its name ends in a dot"),
        ({"disk": "65T"}, "disk must be at most 64T"),
        ({"packages": ["curl"]}, "install.packages is for a base: with an ISO, the answers say"),
        ({"run": ["true"]}, "install.run is for a base"),
        ({"time_limit": "2"}, 'time_limit must be a number with a unit, such as "90s", "30m" or "2h"'),
        ({"time_limit": "9w"}, "time_limit must be at most 604800"),
        ({"disk_bus": "sata"}, 'disk_bus = "sata" must be virtio, ide or scsi'),
        ({"network": "bridge"}, 'network = "bridge" must be none or user'),
        ({"keep": "yes"}, "keep must be true or false"),
        ({"answer": "x"}, "unknown key answer (did you mean answers?)"),
    ],
)
def test_mistakes_in_a_recipe_with_an_iso_are_named(change: dict[str, object], words: str) -> None:
    table = {key: value for key, value in {**ISO, **change}.items() if value is not None}
    with pytest.raises(Malformed) as caught:
        read_recipe(table)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"answers": "a:b.ks"},  # it is ks.cfg there
        {"answers": "a:b.iso", "answers_as": "disk"},  # handed over as it is
        {"answers": "a:b.cfg", "answers_as": "cdrom"},
        {"answers": "a:b.cfg", "answers_as": "initrd", "kernel": "k", "initrd": "i"},
    ],
)
def test_a_name_that_no_disk_of_ours_has_may_be_any(change: dict[str, object]) -> None:
    assert read_recipe({**ISO, **change}).answers == change["answers"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run": []}, "install.base alone changes nothing: add packages or run"),
        ({"packages": ["mediawiki"]}, 'install.packages come over the network: add network = "user"'),
        ({"packages": ["-o=x"]}, "is not the name of a package"),
        ({"run": ["a\nb"]}, "must be one line without control characters"),
        ({"answers": "user-data"}, "install has answers with packages or run"),
        ({"kernel": "vmlinuz"}, "install.kernel is a path in an ISO, and there is none"),
    ],
)
def test_mistakes_in_a_layer_are_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_recipe({**LAYER, **change})
    assert words in str(caught.value)


SIZES = st.integers(min_value=16, max_value=1 << 20)


@given(disk=SIZES, memory=SIZES, cpus=st.integers(1, 256), keep=st.booleans(), limit=st.integers(1, 604800))
def test_a_recipe_with_an_iso_is_read_as_it_was_written(
    *, disk: int, memory: int, cpus: int, keep: bool, limit: int
) -> None:
    recipe = InstallRecipe(
        iso="x.iso", disk=disk * MIB, memory=memory * MIB, cpus=cpus, keep=keep, time_limit=float(limit)
    )
    assert read_recipe(write_recipe(recipe)) == recipe


@given(
    run=st.lists(st.text("abc \t'\"$|;", min_size=1), max_size=5), network=st.sampled_from(["none", "user"])
)
def test_a_layer_is_read_as_it_was_written(run: list[str], network: str) -> None:
    recipe = InstallRecipe(base="jaunty", run=("true", *run), network=network)
    assert read_recipe(write_recipe(recipe)) == recipe
