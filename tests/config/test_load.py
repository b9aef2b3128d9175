import contextlib
import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.host import NOBODY
from uecwatchd.config.load import load
from uecwatchd.config.records import (
    SECTIONS,
    Settings,
    SpoolSettings,
    StateSettings,
    WorkSettings,
    keys_of,
)
from uecwatchd.errors import Halted, NotPermitted
from uecwatchd.intake.sidecar import read_defaults

SHIPPED = Path(__file__).parents[2] / "etc" / "uecwatchd.toml"


def loaded(tmp_path: Path, text: str = "", **environ: str) -> Settings:
    config = tmp_path / "uecwatchd.toml"
    config.write_text(text, encoding="utf-8")
    return load(config, environ=environ)


def complaint(tmp_path: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(Halted) as caught:
        loaded(tmp_path, text, **environ)
    return caught.value.why


def credentials(tmp_path: Path, **contents: str) -> str:
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return str(folder)


# --- where settings come from -----------------------------------------------------------------------------


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    settings = loaded(tmp_path)
    assert settings.spool == SpoolSettings()
    assert settings.state == StateSettings()
    assert settings.work == WorkSettings()
    assert settings.clouds == {}
    assert settings.source == tmp_path / "uecwatchd.toml"


def test_the_file_is_read(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
        [spool]
        folders = ["/srv/a", "/srv/b"]
        settle = 0.5
        after = "archive"
        [defaults]
        bucket = "images"
        [cloud.default]
        dialect = "euca4"
        account = "000100000001"
        [cloud.lab-2]
        ec2_url = "http://192.0.2.1:8773/services/Eucalyptus"
        """,
    )
    assert settings.spool.folders == (Path("/srv/a"), Path("/srv/b"))
    assert settings.spool.settle == 0.5
    assert settings.spool.after == "archive"
    assert settings.defaults == {"bucket": "images"}
    assert [(c.name, c.dialect) for c in settings.clouds.values()] == [
        ("default", "euca4"),
        ("lab-2", "auto"),
    ]
    assert settings.clouds["default"].account == "000100000001"


def test_environment_wins_over_credentials_and_both_over_the_file(tmp_path: Path) -> None:
    folder = credentials(tmp_path, uecwatchd_spool__settle="3\n", uecwatchd_work__sets="3\n")
    settings = loaded(
        tmp_path,
        "[spool]\nsettle = 4\nscan_every = 4\n[work]\nsets = 4\nuploads = 5",
        CREDENTIALS_DIRECTORY=folder,
        UECWATCHD_SPOOL__SETTLE="2",
    )
    assert (settings.spool.settle, settings.work.sets) == (2, 3)
    assert (settings.spool.scan_every, settings.work.uploads) == (4, 5)


def test_every_table_can_be_given_as_environment(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        UECWATCHD_SPOOL__FOLDERS='["/srv/a", "/srv/b"]',
        UECWATCHD_SPOOL__IGNORE="[ab]*",
        UECWATCHD_STATE__DIR="/srv/state",
        UECWATCHD_WORK__UPLOADS="8",
        UECWATCHD_DEFAULTS__VERSION="9.10",
        UECWATCHD_DEFAULTS__PUBLIC="true",
        UECWATCHD_DEFAULTS__SHARE='["123456789012"]',
        UECWATCHD_CLOUD__LAB__DIALECT="aws",
    )
    assert settings.spool.folders == (Path("/srv/a"), Path("/srv/b"))
    assert settings.spool.ignore == ("[ab]*",)
    assert settings.state.dir == Path("/srv/state")
    assert settings.work.uploads == 8
    assert settings.clouds["lab"].dialect == "aws"
    assert read_defaults(settings.defaults).version == "9.10"
    assert read_defaults(settings.defaults).share == ("123456789012",)


def test_digits_in_the_environment_remain_text(tmp_path: Path) -> None:
    cloud = loaded(tmp_path, UECWATCHD_CLOUD__LAB__ACCOUNT="123456789012").clouds["lab"]
    assert cloud.account == "123456789012"


def test_settings_of_a_table_override_a_text_in_its_place(tmp_path: Path) -> None:
    settings = loaded(tmp_path, UECWATCHD_WORK__SETS="3", UECWATCHD_WORK="x")
    assert settings.work.sets == 3


def test_one_folder_needs_no_list(tmp_path: Path) -> None:
    assert loaded(tmp_path, UECWATCHD_SPOOL__FOLDERS="/srv/a").spool.folders == (Path("/srv/a"),)
    assert loaded(tmp_path, '[spool]\nfolders = "/srv/a"').spool.folders == (Path("/srv/a"),)


def test_an_empty_variable_is_no_setting(tmp_path: Path) -> None:
    assert loaded(tmp_path, UECWATCHD_SPOOL__SETTLE="", UECWATCHD_SETTLE="").spool.settle == 5


@pytest.mark.parametrize("source", ["environment", "credentials"])
def test_short_names_are_the_keys_of_the_default_cloud(tmp_path: Path, source: str) -> None:
    if source == "environment":
        environ = {"UECWATCHD_ACCESS_KEY": "AK", "UECWATCHD_SECRET_KEY": "s3cret"}
    else:
        folder = credentials(tmp_path, uecwatchd_access_key="AK\n", uecwatchd_secret_key="s3cret\n")
        environ = {"CREDENTIALS_DIRECTORY": folder}
    cloud = loaded(tmp_path, **environ).clouds["default"]
    assert cloud.access_key == "AK"
    assert cloud.secret_key is not None
    assert cloud.secret_key.get_secret_value() == "s3cret"


def test_a_credential_for_a_file_is_that_file(tmp_path: Path) -> None:
    folder = credentials(tmp_path, uecwatchd_cloud__lab__user_key="-----BEGIN…", another_service="x")
    cloud = loaded(tmp_path, CREDENTIALS_DIRECTORY=folder).clouds["lab"]
    assert cloud.user_key == Path(folder, "uecwatchd_cloud__lab__user_key")


def test_the_files_of_euca2ools_can_be_one_credential_or_several_files(tmp_path: Path) -> None:
    folder = credentials(tmp_path, uecwatchd_cloud__lab__euca2ools_files="[user a]\nkey-id = AK")
    cloud = loaded(tmp_path, CREDENTIALS_DIRECTORY=folder).clouds["lab"]
    assert cloud.euca2ools_files == (Path(folder, "uecwatchd_cloud__lab__euca2ools_files"),)
    named = '[cloud.lab]\neuca2ools_files = ["lab.ini", "~/.euca/*.ini"]'
    cloud = loaded(tmp_path, named, HOME="/home/alice").clouds["lab"]
    assert cloud.euca2ools_files == (tmp_path / "lab.ini", Path("/home/alice/.euca/*.ini"))


@pytest.mark.parametrize(
    ("key", "value"), [("euca2ools", "admin@lab"), ("profile", "lab"), ("region", "lab")]
)
def test_every_kind_of_account_setting_can_be_a_credential(tmp_path: Path, key: str, value: str) -> None:
    folder = credentials(tmp_path, **{f"uecwatchd_cloud__lab__{key}": f"{value}\n"})
    assert getattr(loaded(tmp_path, CREDENTIALS_DIRECTORY=folder).clouds["lab"], key) == value


def test_the_folders_systemd_made_stand_in_for_the_default(tmp_path: Path) -> None:
    environ = {"STATE_DIRECTORY": "/srv/state:/srv/other", "CACHE_DIRECTORY": "/srv/cache"}
    assert loaded(tmp_path, **environ).state == StateSettings(Path("/srv/state"), Path("/srv/cache"))
    assert loaded(tmp_path, '[state]\ndir = "/own"', **environ).state.dir == Path("/own")


def test_relative_paths_are_meant_from_the_file_and_tilde_is_home(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        '[spool]\nfolders = ["drop"]\n[state]\ndir = "state"\n[outputs]\npage = "page"\nmetrics = "~/prom"'
        '\n[cloud.default]\neucarc = "~/eucarc"',
        HOME="/home/alice",
    )
    assert settings.spool.folders == (tmp_path / "drop",)
    assert settings.state.dir == tmp_path / "state"
    assert (settings.outputs.page, settings.outputs.metrics) == (tmp_path / "page", Path("/home/alice/prom"))
    assert settings.clouds["default"].eucarc == Path("/home/alice/eucarc")


def test_the_file_can_be_named_by_a_variable_and_is_no_setting(tmp_path: Path) -> None:
    config = tmp_path / "other.toml"
    config.write_text("[work]\nsets = 7\n", encoding="utf-8")
    settings = load(None, environ={"UECWATCHD_CONFIG": str(config)})
    assert (settings.work.sets, settings.source) == (7, config)


@pytest.mark.parametrize("named_by", ["--config", "$UECWATCHD_CONFIG"])
def test_a_file_that_was_named_must_be_there(tmp_path: Path, named_by: str) -> None:
    missing = tmp_path / "missing.toml"
    config, environ = (missing, {}) if named_by == "--config" else (None, {"UECWATCHD_CONFIG": str(missing)})
    with pytest.raises(Halted) as caught:
        load(config, environ=environ)
    assert (caught.value.what, caught.value.why) == (str(missing), "there is no such file")
    assert named_by in caught.value.hint


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(Halted, match="cannot read it"):
        load(tmp_path, environ={})


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Lay down root's right to read everything, if we have it."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_an_unreadable_file_is_reported_as_missing_permission(tmp_path: Path) -> None:
    config = tmp_path / "uecwatchd.toml"
    config.touch(mode=0)
    with as_nobody(), pytest.raises(NotPermitted):
        load(config, environ={})


# --- mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("[spool]\nsetle = 3", "unknown setting spool.setle (did you mean settle?)", id="key"),
        pytest.param("[spol]", "unknown setting spol (did you mean spool?)", id="table"),
        pytest.param("settle = 3", "settle belongs under [spool]", id="key outside its table"),
        pytest.param("[spool]\nsettle = 0", "spool.settle must be more than 0", id="zero"),
        pytest.param("[spool]\nsettle = nan", "spool.settle must be a finite number", id="nan"),
        pytest.param('[spool]\nsettle = "x"', "spool.settle must be a number", id="word for a number"),
        pytest.param("[spool]\nfolders = []", "spool.folders must not be empty", id="no folder"),
        pytest.param(
            '[spool]\nfolders = ["/a", "/a/b"]',
            "spool.folders must be apart: /a/b is in /a",
            id="folder in folder",
        ),
        pytest.param(
            '[spool]\nafter = "archiv"',
            'spool.after = "archiv" must be keep, archive or delete (did you mean archive?)',
            id="choice",
        ),
        pytest.param("[work]\nsets = 65", "work.sets must be at most 64", id="too many"),
        pytest.param("[work]\nuploads = 0", "work.uploads must be at least 1", id="too few"),
        pytest.param("[work]\nuploads = true", "work.uploads must be a number", id="flag for a number"),
        pytest.param("[work]\nuploads = 1.5", "work.uploads must be a whole number", id="half an upload"),
        pytest.param("[cloud.a]\nuploads = 0", "cloud.a.uploads must be at least 1", id="no uploads"),
        pytest.param(
            "[cloud.a]\nregistrations = 65", "cloud.a.registrations must be at most 64", id="many at once"
        ),
        pytest.param(
            '[cloud.a]\nuploads = "many"', "cloud.a.uploads must be a whole number", id="words for a number"
        ),
        pytest.param(
            '[cloud.a]\ndialect = "euca6"',
            'cloud.a.dialect = "euca6" must be auto, uec, euca3, euca4, euca5, openstack, aws or sandbox '
            "(did you mean euca5?)",
            id="dialect",
        ),
        pytest.param(
            "[cloud.a]\naccount = 1", "cloud.a.account must be text in quotes", id="number for text"
        ),
        pytest.param(
            '[cloud.a]\nname = "b"', "unknown setting cloud.a.name", id="a cloud's name is its table's"
        ),
        pytest.param(
            "[cloud.Lab]",
            "cloud.Lab is no name for a cloud: use lower-case letters, digits and hyphens",
            id="capital",
        ),
        pytest.param(
            '[cloud.a]\nec2_url = "192.0.2.1"',
            "cloud.a.ec2_url must be a web address (http://HOST:PORT/PATH)",
            id="no scheme",
        ),
        pytest.param(
            '[cloud.a]\nregion = "eu_west"',
            "cloud.a.region is no name for a region: use letters, digits and hyphens",
            id="region",
        ),
        pytest.param('[cloud.a]\nprofile = ""', "cloud.a.profile must not be empty", id="empty profile"),
        pytest.param(
            '[work]\nverify = "all"', 'work.verify = "all" must be sizes or full', id="way of verifying"
        ),
        pytest.param("spool = 3", "spool must be a table", id="value for a table"),
        pytest.param("[spool]\nsettle 3", "line 2, column 8: ", id="bad TOML"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(tmp_path: Path, text: str, why: str) -> None:
    assert complaint(tmp_path, text).startswith(why)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    why = complaint(tmp_path, "[spool]\nsetle = 3\nsettle = 0\n[work]\nsets = 0\n[cloud.a]\ndialekt = 1")
    assert len(why.split("; ")) == 4


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("UECWATCHD_SPOOL__SETLE", "1", "unknown setting spool.setle (did you mean settle?)"),
        ("UECWATCHD_SPOOL__SETTLE", "soon", "spool.settle must be a number"),
        ("UECWATCHD_SPOOL", "x", "spool must be a table"),
        ("UECWATCHD_SETTLE", "1", "settle belongs under [spool]"),
        ("UECWATCHD_STATE__DIR", "state", "state.dir must be an absolute path"),
        ("UECWATCHD_SPOOL__\udcff", "1", "spool is not valid Unicode"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    tmp_path: Path, name: str, value: str, why: str
) -> None:
    assert complaint(tmp_path, **{name: value}).startswith(why)
    if name.isascii():
        assert complaint(tmp_path, **{name: value}).endswith(f" (from {name})")


def test_a_mistake_in_a_credential_names_the_credential(tmp_path: Path) -> None:
    folder = credentials(tmp_path, uecwatchd_cloud__default__secretkey="x")
    why = complaint(tmp_path, CREDENTIALS_DIRECTORY=folder)
    assert "unknown setting cloud.default.secretkey (did you mean secret_key?)" in why
    assert "credential uecwatchd_cloud__default__secretkey" in why


def test_a_credential_for_an_unknown_cloud_is_named(tmp_path: Path) -> None:
    folder = credentials(tmp_path, uecwatchd_eucarc="x")
    why = complaint(tmp_path, CREDENTIALS_DIRECTORY=folder)
    assert "name it uecwatchd_cloud__NAME__eucarc (from credential uecwatchd_eucarc)" in why


def test_a_missing_credentials_folder_is_a_mistake_of_the_unit(tmp_path: Path) -> None:
    why = complaint(tmp_path, CREDENTIALS_DIRECTORY=str(tmp_path / "missing"))
    assert "No such file" in why


@pytest.mark.parametrize(
    "mistake",
    [
        "[spool]\nsettle = 0",
        "[cloud.default]\nsecretkey = 1",
        "[cloud.default]\nec2_url = 'http://user:s3cret@host/'",
    ],
)
def test_secrets_are_never_shown(tmp_path: Path, mistake: str) -> None:
    environ = {"UECWATCHD_CLOUD__DEFAULT__SECRET_KEY": "s3cret", "UECWATCHD_SECRET_KEY": "s3cret"}
    with pytest.raises(Halted) as caught:
        loaded(tmp_path, mistake, **environ)
    assert "s3cret" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
    assert "s3cret" not in repr(loaded(tmp_path, **environ))


# --- the file that is shipped -----------------------------------------------------------------------------


def uncommented() -> str:
    """The shipped file with every setting that it only mentions."""
    return re.sub(r"^#(?=[a-z0-9_]+ = )", "", SHIPPED.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_shipped_file_is_valid_as_it_is_and_with_everything_in_it() -> None:
    shipped = load(SHIPPED, environ={})
    assert shipped.clouds["default"].eucarc == Path("/etc/uecwatchd/eucarc")
    assert (shipped.spool, shipped.state, shipped.work) == (SpoolSettings(), StateSettings(), WorkSettings())


def test_the_shipped_file_explains_every_setting_with_its_default(tmp_path: Path) -> None:
    tables = tomllib.loads(uncommented())
    tables["cloud"] = tables["cloud"]["default"]
    assert {section: sorted(tables[section]) for section in SECTIONS} == {
        section: sorted(keys_of(section)) for section in SECTIONS
    }
    settings = loaded(tmp_path, uncommented())
    default = StateSettings()
    assert (settings.spool, settings.work) == (SpoolSettings(), WorkSettings())
    assert (settings.state.dir, settings.state.work_folder) == (default.dir, default.work_folder)
    assert read_defaults(settings.defaults).bucket == read_defaults({}).bucket


LATER_KEYS_OF_CLOUDS = (
    *("test", "instance_type", "key_name", "user_data", "subnet", "security_groups"),
    *("boot_seconds", "boot_every", "boot_port", "uploads", "registrations"),
)


def test_a_configuration_of_the_version_before_means_the_same() -> None:
    """Both files were made with version 0.1, before its modules were called as they are now."""
    file = Path(__file__).parent / "fixtures" / "version-0.1.toml"
    environ = {
        "HOME": "/var/lib/uecwatchd",
        "UECWATCHD_SPOOL__SETTLE": "7",
        "UECWATCHD_CLOUD__FAR__EC2_URL": "https://far.example/ec2",
        "UECWATCHD_CLOUD__FAR__ACCESS_KEY": "AKFAR",
    }
    settings = dataclasses.asdict(replace(load(file, environ=environ), source=None))
    before = json.loads(file.with_suffix(".json").read_text()) | {"source": None}
    before["work"]["max_disk_size"] = None  # which came later
    before["spool"]["removed"] = "keep"
    for policy in before["spool"]["policy"].values():
        policy |= {"retention": None, "source": None, "source_cloud": "default", "shared": False}
    for cloud in before["clouds"].values():
        cloud |= {"ssm_url": None, "latest_parameter": None}
    for later in ("outputs", "notify", "hooks", "install", "retention", "fleet"):
        del settings[later]
    for cloud in settings["clouds"].values():
        for later in LATER_KEYS_OF_CLOUDS:
            del cloud[later]
    assert plain(settings) == before


def plain(value: object) -> object:
    """Return a value as JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, int | float | str) else str(value)


@pytest.mark.parametrize(
    ("written", "size"),
    [('"auto"', None), ('"500G"', 500 << 30), ('"2t"', 2 << 40), ('"64M"', 64 << 20), ("4096", 4096)],
)
def test_a_size_is_written_with_its_unit(written: str, size: int | None, tmp_path: Path) -> None:
    file = tmp_path / "uecwatchd.toml"
    file.write_text(f"[work]\nmax_disk_size = {written}\n")
    assert load(file, environ={}).work.max_disk_size == size


@pytest.mark.parametrize("written", ['"5 G"', '"-1"', "0", "true", '"2TiB"', '""'])
def test_a_size_that_is_none_halts(written: str, tmp_path: Path) -> None:
    file = tmp_path / "uecwatchd.toml"
    file.write_text(f"[work]\nmax_disk_size = {written}\n")
    with pytest.raises(Halted):
        load(file, environ={})
