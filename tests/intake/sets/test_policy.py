"""Limits for the sidecars of a folder, set by an administrator."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.intake.sets.test_assemble import UEC, listing
from tests.support.host import Host
from uecwatchd.cli.check.members import examine_members
from uecwatchd.config.load import load
from uecwatchd.config.records import FolderPolicy, Policy
from uecwatchd.errors import Halted, Rejected
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import Rules
from uecwatchd.intake.sidecar import read_defaults
from uecwatchd.intake.spool.exposure import exposure
from uecwatchd.intake.spool.scan import scan

ALL = ("public", "share", "bucket", "on_existing", "clouds")
NONE = b'kernel = "none"\n'


def refused(text: bytes, policy: Policy, rules: Rules = UEC) -> Rejected | None:
    made = listing({"web.img": "partition", "web.toml": NONE + text})
    assembly = assemble(made, rules=replace(rules, policy=policy))
    assert len(assembly.ready) + len(assembly.refused) == 1
    error = assembly.refused[0].error if assembly.refused else None
    assert error is None or isinstance(error, Rejected)
    return error


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("public", b"public = true"),
        ("share", b'share = ["123456789012"]'),
        ("bucket", b'bucket = "others"'),
        ("on_existing", b'on_existing = "replace"'),
        ("on_existing", b'on_existing = "fail"'),
        ("clouds", b'clouds = ["second"]'),
    ],
)
def test_a_forbidden_key_is_rejected_by_name(key: str, text: bytes) -> None:
    two = replace(
        UEC,
        needs={**UEC.needs, "second": frozenset()},
        windows_needs={"default": frozenset(), "second": frozenset()},
    )
    error = refused(text, Policy(closed=(key,)), two)  # type: ignore[arg-type]
    assert error
    assert error.what == f"web.toml: {key} is not open to sidecars in this folder"
    assert error.hint.startswith(f"Leave {key} out")
    others = tuple(other for other in ALL if other != key)
    assert refused(text, Policy(closed=others), two) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [b"", b"public = false", b"share = []", b'bucket = "uec-images"'])
def test_a_forbidden_key_may_repeat_a_value_that_holds_anyway(text: bytes) -> None:
    assert refused(text, Policy(closed=ALL)) is None


def test_defaults_apply_also_to_forbidden_keys() -> None:
    rules = replace(UEC, defaults=read_defaults({"public": True, "bucket": "given", "kernel": "none"}))
    made = listing({"web.img": "partition", "web.toml": b'description = "x"'})
    (found,) = assemble(made, rules=replace(rules, policy=Policy(closed=ALL))).ready
    assert (found.sidecar.public, found.sidecar.bucket) == (True, "given")


@pytest.mark.parametrize(
    ("bucket", "ok"),
    [("team-a", True), ("team-a-x", True), ("uec-images", True), ("team-b", False), ("team", False)],
)
def test_only_buckets_that_are_listed_may_be_named_and_the_default(bucket: str, *, ok: bool) -> None:
    error = refused(f'bucket = "{bucket}"'.encode(), Policy(buckets=("team-a", "team-a-*")))
    assert (error is None) is ok
    assert error is None or f"{bucket} is none of team-a, team-a-*" in error.why


def test_only_clouds_that_are_listed_may_be_named() -> None:
    rules = replace(UEC, needs=dict.fromkeys(("default", "b", "c"), frozenset[Any]()))
    assert refused(b'clouds = ["b"]', Policy(clouds=("b",)), rules) is None
    error = refused(b'clouds = ["b", "c"]', Policy(clouds=("b",)), rules)
    assert error
    assert "c is none of b" in error.why


def test_a_new_policy_affects_only_new_and_changed_sets() -> None:
    made = listing({"web.img": "partition", "web.toml": NONE + b"public = true"})
    (found,) = assemble(made, rules=UEC).ready
    closed = replace(UEC, policy=Policy(closed=("public",)))
    taken = {"web": [(member.path, member.stamp) for member in found.members]}
    assert assemble(made, rules=closed, taken=taken, done={"web": found.stamp}).ready
    assert assemble(made, rules=closed, taken=taken, done={"web": "another"}).refused


# --- as an administrator writes it ------------------------------------------------------------------------


def loaded(tmp_path: Path, text: str, **environ: str) -> Any:
    config = tmp_path / "uecwatchd.toml"
    config.write_text(text)
    return load(config, environ=environ).spool


FOLDERS = '[spool]\nfolders = ["/srv/a", "/srv/b"]\nclosed = ["public"]\n'


def test_one_folder_has_its_own_policy_key_by_key(tmp_path: Path) -> None:
    spool = loaded(tmp_path, f'{FOLDERS}[spool.policy."/srv/a"]\nmembers = "trusted"\nbuckets = ["a-*"]\n')
    assert spool.policy_of(Path("/srv/a")) == Policy("trusted", ("public",), ("a-*",))
    assert spool.policy_of(Path("/srv/b")) == Policy("separate", ("public",))
    spool = loaded(tmp_path, f'{FOLDERS}[spool.policy."/srv/a/"]\nclosed = []\n')
    assert spool.policy_of(Path("/srv/a")) == Policy()


def test_the_environment_overrides_it_like_every_setting(tmp_path: Path) -> None:
    spool = loaded(
        tmp_path,
        FOLDERS,
        UECWATCHD_SPOOL__CLOSED='["share", "bucket"]',
        UECWATCHD_SPOOL__MEMBERS="trusted",
        UECWATCHD_SPOOL__POLICY='{"/srv/b": {"members": "separate"}}',
    )
    assert spool.policy_of(Path("/srv/a")) == Policy("trusted", ("share", "bucket"))
    assert spool.policy == {Path("/srv/b"): FolderPolicy(members="separate")}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[spool.policy."/srv/c"]\nclosed = []', "has a policy for /srv/c, which is not among its folders"),
        ('[spool.policy."a"]\nclosed = []', "must be an absolute path"),
        ('[spool.policy."/srv/a"]\nclose = []', "(did you mean closed?)"),
        ('[spool.policy."/srv/a"]\nclosed = ["publik"]', "(did you mean public?)"),
        ('[spool.policy."/srv/a"]\nmembers = "friends"', "must be separate or trusted"),
        ('[spool.policy]\n"/srv/a" = 1', "must be a table"),
    ],
)
def test_a_policy_with_a_mistake_is_refused_and_never_half_taken(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(Halted) as caught:
        loaded(tmp_path, f"{FOLDERS}{text}\n")
    assert why in caught.value.why


def test_check_reports_the_policy_of_each_folder_and_its_limits(tmp_path: Path) -> None:
    tmp_path.chmod(0o1770)
    policy = Policy("separate", ("public",), ("a-*",), ("moon",))
    bad, finding = examine_members(tmp_path, policy, clouds=["default"])
    assert (bad.level, bad.exit_code) == ("bad", 78)
    assert "there is no [cloud.moon]" in bad.what
    assert finding.what.endswith("sidecars may not say public; buckets: a-*; clouds: moon")
    tmp_path.chmod(0o777)
    finding, warning = examine_members(tmp_path, Policy(), clouds=[])
    assert warning.hint == f"Try: chmod +t {tmp_path}"


# --- what others may have had a hand in -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (0o644, None),
        (0o640, None),
        (0o660, "the group 4711"),
        (0o664, "the group 4711"),
        (0o646, "everybody"),
    ],
)
def test_a_file_that_others_may_write_to_is_not_its_owners_alone(
    tmp_path: Path, mode: int, why: str | None
) -> None:
    file = tmp_path / "web.img"
    file.touch()
    os.chown(file, 4001, 4711)
    file.chmod(mode)
    found = exposure(file.stat())
    assert (found and found.why) == (why and f"mode {mode:04o} lets {why} write to it")


def test_the_private_group_of_the_owner_is_no_other_user(tmp_path: Path) -> None:
    file = tmp_path / "web.img"
    file.touch(mode=0o660)
    file.chmod(0o660)
    assert exposure(file.stat()) is None


@pytest.mark.parametrize(("mode", "open_"), [(0o2755, False), (0o2775, True), (0o3775, False), (0o777, True)])
def test_a_folder_in_which_others_may_rename_is_not_its_owners_alone(
    tmp_path: Path, mode: int, *, open_: bool
) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    os.chown(folder, 4001, 4711)
    folder.chmod(mode)
    assert (exposure(folder.stat()) is not None) is open_


def test_a_hard_link_counts_only_where_other_users_can_make_one(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.touch()
    assert exposure(file.stat(), links_are_free=True) is None
    (tmp_path / "other.toml").hardlink_to(file)
    assert exposure(file.stat(), links_are_free=False) is None
    found = exposure(file.stat(), links_are_free=True)
    assert found
    assert "second name" in found.why


@pytest.mark.parametrize(("path", "mode"), [("web.toml", 0o664), ("web.img", 0o660)])
def test_a_set_waits_until_its_files_are_its_owners_alone(host: Host, path: str, mode: int) -> None:
    (host.spool / "web.img").write_bytes(b"\1" * (1 << 20))
    (host.spool / "web.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    for file in host.spool.iterdir():
        os.chown(file, 4001, 4711)
    (host.spool / path).chmod(mode)
    assert host.run("once").returncode == 75
    waits = host.report("web")["waiting_for"]
    assert waits.startswith(f"{path} to be its owner's alone: mode {mode:04o} lets ")
    assert f"try: chmod go-w {host.spool / path}" in waits
    (host.spool / path).chmod(0o644)
    assert host.run("once").returncode == 0
    (host.spool / path).chmod(mode)
    host.run("once")
    assert host.report("web")["state"] == "done"


def test_write_access_does_not_matter_in_the_folder_of_one_team(host: Host) -> None:
    host.configure(host.config.read_text().replace("settle =", 'members = "trusted"\nsettle ='))
    (host.spool / "web.img").write_bytes(b"\1" * (1 << 20))
    (host.spool / "web.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    os.chown(host.spool / "web.img", 4001, 4711)
    os.chown(host.spool / "web.toml", 4002, 4711)
    for file in host.spool.iterdir():
        file.chmod(0o664)
    assert host.run("once").returncode == 0


def test_the_owner_of_each_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "web.img").touch()
    (tmp_path / ".web.toml.swp").touch()
    os.chown(tmp_path / "web.img", 4001, 4711)
    os.chown(tmp_path / ".web.toml.swp", 4002, 4711)
    found = scan(tmp_path, now=0.0)
    assert found.entries["web.img"].owner == 4001
    assert found.ignored_of == {".web.toml.swp": 4002}
