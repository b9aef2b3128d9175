"""Paths that a unit keeps from its service, and lines that change that; `tests/booted` has a real systemd."""

# ruff: noqa: S108 (the folders are only named)

from pathlib import PurePath
from typing import Any

import pytest

from uecwatchd.cli.unit.path_access import Need, bound, drop_in, obstacles
from uecwatchd.cli.unit.systemd import Unit

HOME = "ProtectHome=read-only"
AT = "/root"  # a home, too
STRICT = {"ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": True}


def lines(path: str, *, write: bool = False, credential: str = "", **settings: Any) -> tuple[str, ...]:
    unit = Unit("uecwatchd.service", settings)
    return drop_in(obstacles(unit, [Need(PurePath(path), write=write, credential=credential)]))[1:]


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("/var/spool/uecwatchd", {**STRICT, "ReadWritePaths": ["-/var/spool/uecwatchd"]}),
        ("/var/spool/uecwatchd/deep", {**STRICT, "ReadWritePaths": ["+/var/spool/uecwatchd"]}),
        ("/var/lib/uecwatchd", {**STRICT, "StateDirectory": ["uecwatchd"]}),
        ("/var/cache/mine", {**STRICT, "CacheDirectory": ["other", "mine"]}),
        ("/home/alice/drop", {"ProtectHome": "no", "ProtectSystem": "full"}),
        ("/home/alice/drop", {**STRICT, "ProtectHome": "read-only", "ReadWritePaths": ["/home/alice"]}),
        ("/home/alice/drop", {**STRICT, "ProtectHome": "tmpfs", "BindPaths": [["/x", "/home/alice/drop"]]}),
        ("/tmp/drop", {**STRICT, "BindPaths": [["/tmp/drop", "/tmp/drop", False, 0]]}),
        ("/srv", {"ProtectSystem": "full"}),
        ("/dev/shm/drop", STRICT),
        ("/sys", {"ProtectSystem": "strict"}),
        ("/home/alice/drop", {"ProtectSystem": "strict", "ProtectHome": "no"}),
        ("/home", {**STRICT, "ProtectHome": "tmpfs", "ReadWritePaths": ["/home"]}),
        ("/srv/a/b", {"ReadOnlyPaths": ["/srv/a"], "ReadWritePaths": ["/srv/a/b"]}),
        ("/srv/a", {"TemporaryFileSystem": [["/srv/a", ""]], "ReadWritePaths": ["/srv/a"]}),
        ("/anything", {**STRICT, "RootDirectory": "/srv/root"}),
    ],
)
def test_a_path_that_the_unit_allows_needs_no_line(path: str, settings: dict[str, Any]) -> None:
    assert lines(path, write=True, **settings) == ()


@pytest.mark.parametrize(
    ("path", "settings", "expected"),
    [
        ("/srv/drop", STRICT, ("ReadWritePaths=-/srv/drop",)),
        ("/etc/drop", {"ProtectSystem": "full"}, ("ReadWritePaths=-/etc/drop",)),
        ("/home/a", STRICT, ("ProtectHome=read-only", "ReadWritePaths=-/home/a")),
        ("/root", {**STRICT, "ReadWritePaths": ["/root"]}, ("ProtectHome=tmpfs", "BindPaths=-/root")),
        ("/root", {"ProtectHome": "read-only"}, ("ProtectHome=tmpfs", "BindPaths=-/root")),
        (f"{AT}/a", {**STRICT, "ReadWritePaths": [AT]}, (HOME, f"ReadWritePaths=-{AT}/a")),
        ("/srv/a", {"ReadOnlyPaths": ["/srv/a"]}, ("ReadOnlyPaths=", "ReadWritePaths=-/srv/a")),
        ("/srv/a", {"ReadOnlyPaths": ["-/srv/a", "/b c"], "ReadWritePaths": ["/srv/a"]},
         ("ReadOnlyPaths=", 'ReadOnlyPaths="-/b c"', "ReadWritePaths=-/srv/a")),
        ("/srv/a", {"ReadOnlyPaths": ["/srv/a"], "BindPaths": [["/x", "/srv/a"]]},
         ("ReadOnlyPaths=", "ReadWritePaths=-/srv/a")),
        ("/var/lib/a", {**STRICT, "StateDirectory": ["a"], "ReadOnlyPaths": ["/var/lib/a"]},
         ("ReadOnlyPaths=", "ReadWritePaths=-/var/lib/a")),
        ("/etc", {"ProtectSystem": "full", "ReadWritePaths": ["/etc"]}, ()),
        ("/home/a", {**STRICT, "ProtectHome": "tmpfs"}, ("BindPaths=-/home/a",)),
        ("/var/tmp/a", {**STRICT, "ReadWritePaths": ["/var/tmp/a"]}, ("BindPaths=-/var/tmp/a",)),
        ("/srv/a b", STRICT, ('ReadWritePaths="-/srv/a b"',)),
        ("/srv/50%", STRICT, ("ReadWritePaths=-/srv/50%%",)),
        ("/tmp/a:b", STRICT, ('BindPaths="-/tmp/a\\:b"',)),
        ("/srv/no", {"InaccessiblePaths": ["-/srv"]}, ()),
    ],
)  # fmt: skip
def test_a_folder_to_be_written_needs_these_lines(
    path: str, settings: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert lines(path, write=True, **settings) == expected


def test_a_path_that_no_line_makes_writable_is_still_an_obstacle() -> None:
    unit = Unit("x", {"BindReadOnlyPaths": [["/x", "/srv/a"]], "ReadWritePaths": ["/srv/a"]})
    (found,) = obstacles(unit, [Need(PurePath("/srv/a"), write=True)])
    assert found.why == "/srv/a is read-only to the service (BindReadOnlyPaths=)"
    assert found.lines == ()


def test_a_locked_path_is_unlocked_for_every_writer() -> None:
    unit = Unit("x", {"ReadOnlyPaths": ["/srv/a", "/srv/b", "/srv/c"]})
    found = obstacles(unit, [Need(PurePath(path), write=True) for path in ("/srv/a", "/srv/b")])
    unlocked = ["ReadOnlyPaths=", "ReadOnlyPaths=-/srv/c", "ReadWritePaths=-/srv/a", "ReadWritePaths=-/srv/b"]
    assert drop_in(found) == ("[Service]", *unlocked)


@pytest.mark.parametrize(
    ("path", "credential", "expected"),
    [
        ("/etc/uecwatchd/eucarc", "", ()),
        (f"{AT}/eucarc", "uecwatchd_eucarc", (f"LoadCredential=uecwatchd_eucarc:{AT}/eucarc",)),
        (f"{AT}/a b%", "uecwatchd_x", (f"LoadCredential=uecwatchd_x:{AT}/a b%%",)),
        ("/home/a/x.ini", "", ("ProtectHome=read-only",)),
        ("/tmp/x.ini", "", ("BindReadOnlyPaths=-/tmp/x.ini",)),
    ],
)  # fmt: skip
def test_a_file_to_be_read_needs_these_lines(path: str, credential: str, expected: tuple[str, ...]) -> None:
    assert lines(path, credential=credential, **STRICT) == expected


def test_a_path_that_no_line_opens_is_still_reported() -> None:
    unit = Unit("uecwatchd.service", {"InaccessiblePaths": ["/srv"]})
    (found,) = obstacles(unit, [Need(PurePath("/srv/drop"), write=True)])
    assert found.why == "/srv/drop is hidden from the service (InaccessiblePaths=)"


def test_the_configuration_of_a_service_is_read_from_its_unit() -> None:
    command = [["/usr/bin/uecwatchd", ["uecwatchd", "--config=/etc/a.toml", "run"]]]
    assert str(Unit("x", {"ExecStart": command}).config) == "/etc/a.toml"
    command = [["/usr/bin/uecwatchd", ["uecwatchd", "run", "--config", "/etc/b.toml"]]]
    assert str(Unit("x", {"ExecStart": command}).config) == "/etc/b.toml"
    assert str(Unit("x", {"Environment": ["UECWATCHD_CONFIG=/etc/c.toml"]}).config) == "/etc/c.toml"
    assert str(Unit("x", {}).config) == "/etc/uecwatchd/uecwatchd.toml"


@pytest.mark.parametrize(
    ("path", "setting"),
    [
        ("/srv/drop", "BindPaths="),
        ("/srv/drop/deep", "BindPaths="),
        ("/home/alice/drop", "BindPaths="),
        ("/srv/keys", "BindReadOnlyPaths="),
        ("/srv", ""),
        ("/srv/dropped", ""),
        ("/home/bob", ""),
    ],
)
def test_the_service_sees_other_files_only_below_bind_mounts(path: str, setting: str) -> None:
    binds = [["/x", "/srv/drop"], ["/home/alice/drop", "/home/alice/drop"]]
    settings = {
        **STRICT,
        "ProtectHome": "tmpfs",
        "BindPaths": binds,
        "BindReadOnlyPaths": [["/y", "/srv/keys"]],
    }
    assert bound(Unit("uecwatchd.service", settings), PurePath(path)) == setting


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ()),
        ({"NoExecPaths": ["/srv"]}, ()),
        ({"NoExecPaths": ["/"], "ExecPaths": ["-/usr/bin", "/etc"]}, ()),
        ({"NoExecPaths": ["/"], "ExecPaths": ["/usr/bin"]}, ("ExecPaths=-/etc/uecwatchd/hook",)),
        (
            {"NoExecPaths": ["/", "-/etc/uecwatchd"], "ExecPaths": ["/etc"]},
            ("ExecPaths=-/etc/uecwatchd/hook",),
        ),
        ({"NoExecPaths": ["/etc"], "ExecPaths": ["/etc"]}, ("ExecPaths=-/etc/uecwatchd/hook",)),
    ],
)
def test_a_program_needs_a_place_where_programs_may_be_executed(
    settings: dict[str, Any], expected: tuple[str, ...]
) -> None:
    need = Need(PurePath("/etc/uecwatchd/hook"), execute=True)
    found = obstacles(Unit("uecwatchd.service", {**STRICT, **settings}), [need])
    assert drop_in(found)[1:] == expected
    assert [one.why for one in found] == [
        "the service may not execute /etc/uecwatchd/hook (NoExecPaths=)" for _ in expected
    ]


def test_a_program_in_a_home_is_hidden() -> None:
    (found,) = obstacles(Unit("u", STRICT), [Need(PurePath("/home/alice/hook"), execute=True)])
    assert found.why == "/home/alice/hook is hidden from the service (ProtectHome=yes)"
