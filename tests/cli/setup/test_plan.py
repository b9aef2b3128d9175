"""Plans of a setup, decided from wishes and facts; nothing is done here."""

from dataclasses import replace
from pathlib import Path

import pytest

from uecwatchd.cli.setup.answers import SetupRequest
from uecwatchd.cli.setup.host_facts import ENCRYPTED, PLAIN, HostFacts, StoredCredential
from uecwatchd.cli.setup.plan import left_to_do, plan_removal, plan_setup
from uecwatchd.cli.setup.steps import RemovePath, RunProgram, StoreCredential, WriteText
from uecwatchd.errors import Halted

SECRET = "uecwatchd_cloud__default__secret_key"
WANTED = SetupRequest(
    settings={"ec2_url": "http://192.0.2.1/e"}, credentials={"secret_key": b"hush"}, members=("alice",)
)
FRESH = HostFacts(
    unit="uecwatchd.service",
    config=Path("/etc/uecwatchd/uecwatchd.toml"),
    text='[cloud.default]\neucarc = "/etc/uecwatchd/eucarc"\n',
    drop_in="",
    stored=(),
    can_encrypt=True,
    users=frozenset({"alice", "uecwatchd"}),
    groups={"uecdrop": frozenset({"uecwatchd"}), "uecadm": frozenset()},
    is_booted=True,
    is_enabled=False,
    is_active=False,
)


def done(facts: HostFacts, wanted: SetupRequest) -> HostFacts:
    """Return the facts after the plan was carried out."""
    groups = {name: set(members) for name, members in facts.groups.items()}
    stored = {one.name: one for one in facts.stored}
    text, drop_in = facts.text, facts.drop_in
    for change in (step.change for step in plan_setup(wanted, facts)):
        match change:
            case WriteText(path, written) if path == facts.config:
                text = written
            case WriteText(path, written):
                drop_in = written
            case StoreCredential(name, path, data):
                stored[name] = StoredCredential(name, path, data)
            case RunProgram(("gpasswd", _, user, group)):
                groups[group].add(user)
    return replace(
        facts,
        text=text,
        drop_in=drop_in,
        stored=tuple(stored.values()),
        groups={name: frozenset(members) for name, members in groups.items()},
        is_enabled=True,
        is_active=True,
    )


def texts(wanted: SetupRequest, facts: HostFacts) -> str:
    return "\n".join(step.text for step in plan_setup(wanted, facts))


def test_a_fresh_host_gets_configuration_credentials_members_and_a_start() -> None:
    said = texts(WANTED, FRESH)
    words = ("[cloud.default]", SECRET, "50-setup.conf", "alice", "every boot")
    places = [said.index(word) for word in words]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dialect": "foo"}, 'cloud.lab.dialect = "foo" must be auto, uec,'),
        ({"ec2_url": "192.0.2.1"}, "cloud.lab.ec2_url must be a web address"),
        ({"region": "a b"}, "cloud.lab.region"),
    ],
)
def test_a_setting_that_the_service_would_not_start_with_is_refused(
    settings: dict[str, str], said: str
) -> None:
    with pytest.raises(Halted) as raised:
        plan_setup(SetupRequest("lab", settings), FRESH)
    assert said in raised.value.why


def test_a_second_setup_has_nothing_left_to_do() -> None:
    assert not left_to_do(plan_setup(WANTED, done(FRESH, WANTED)))


def test_another_member_is_added_without_a_restart() -> None:
    facts = done(FRESH, WANTED)
    more = plan_setup(SetupRequest(members=("uecwatchd", "alice"), operators=("alice",)), facts)
    assert [step.change.command for step in more if isinstance(step.change, RunProgram)] == [
        ("gpasswd", "--add", "alice", "uecadm")
    ]


def test_a_new_secret_is_stored_and_the_service_restarted() -> None:
    facts = done(FRESH, WANTED)
    steps = plan_setup(replace(WANTED, credentials={"secret_key": b"other"}), facts)
    changes = [step.change for step in steps if step.change]
    assert isinstance(changes[0], StoreCredential)
    assert isinstance(changes[-1], RunProgram)
    assert changes[-1].command == ("systemctl", "restart", "uecwatchd.service")
    assert len(changes) == 2


def test_a_service_that_has_failed_may_start_again() -> None:
    facts = replace(done(FRESH, WANTED), is_active=False, has_failed=True)
    commands = [
        step.change.command for step in plan_setup(WANTED, facts) if isinstance(step.change, RunProgram)
    ]
    assert commands == [
        ("systemctl", "reset-failed", "uecwatchd.service"),
        ("systemctl", "start", "uecwatchd.service"),
    ]


def test_no_plan_shows_a_secret() -> None:
    assert "hush" not in repr(plan_setup(WANTED, FRESH))
    assert "hush" not in texts(WANTED, FRESH)
    assert "hush" not in repr(WANTED)


def test_a_host_that_cannot_encrypt_keeps_credentials_for_root_alone() -> None:
    facts = replace(FRESH, can_encrypt=False)
    (stored,) = [
        step.change for step in plan_setup(WANTED, facts) if isinstance(step.change, StoreCredential)
    ]
    assert (stored.path, stored.is_encrypted) == (PLAIN / SECRET, False)
    assert f"LoadCredential={SECRET}:{PLAIN / SECRET}\n" in done(facts, WANTED).drop_in


def test_a_plain_credential_is_removed_when_it_can_be_encrypted() -> None:
    before = done(replace(FRESH, can_encrypt=False), WANTED)
    changes = [step.change for step in plan_setup(WANTED, replace(before, can_encrypt=True))]
    assert RemovePath(PLAIN / SECRET) in changes
    after = done(replace(before, can_encrypt=True), WANTED)
    assert after.drop_in.count("LoadCredential") == 1
    assert f"LoadCredentialEncrypted={SECRET}:{ENCRYPTED / SECRET}\n" in after.drop_in


def test_credentials_of_another_cloud_stay() -> None:
    facts = done(done(FRESH, WANTED), replace(WANTED, cloud="lab"))
    assert facts.drop_in.count("LoadCredentialEncrypted=") == 2
    assert "[cloud.lab]" in (facts.text or "")


def test_an_unknown_user_stops_the_setup_before_its_first_step() -> None:
    with pytest.raises(Halted, match="user malory") as refused:
        plan_setup(replace(WANTED, members=("malory",)), FRESH)
    assert "adduser malory" in refused.value.hint


def test_an_operator_without_sudo_or_its_rule_gets_advice() -> None:
    bare = replace(FRESH, has_sudo=False, has_sudo_rule=False)
    wanted = SetupRequest(operators=("alice",))
    for facts, expected in ((FRESH, False), (bare, True)):
        said = texts(wanted, facts)
        assert ("apt-get install sudo" in said, "/etc/sudoers.d/uecwatchd" in said) == (expected, expected)
    assert "sudo" not in texts(SetupRequest(members=("alice",)), bare)


def test_without_systemd_nothing_is_started() -> None:
    steps = plan_setup(WANTED, replace(FRESH, is_booted=False))
    assert "not started" in steps[-1].text
    assert steps[-1].change is None


def test_a_removal_takes_back_what_setup_did_and_a_purge_the_data() -> None:
    facts = done(FRESH, WANTED)
    removed = {s.change.path for s in plan_removal(facts, purge=False) if isinstance(s.change, RemovePath)}
    assert removed == {*facts.drop_in_paths, ENCRYPTED / SECRET}
    purged = {s.change.path for s in plan_removal(facts, purge=True) if isinstance(s.change, RemovePath)}
    folders = ("/var/lib/uecwatchd", "/var/lib/uecwatchd-build", "/var/cache/uecwatchd")
    assert purged - removed == {facts.config, *map(Path, folders)}


def commands(facts: HostFacts) -> list[tuple[str, ...]]:
    steps = plan_removal(facts, purge=False)
    return [step.change.command for step in steps if isinstance(step.change, RunProgram)]


def test_a_removal_ends_single_runs_and_first_what_starts_them() -> None:
    starters = ("uecwatchd-once.path", "uecwatchd-once.timer")
    assert commands(replace(FRESH, starters=starters, single_run=True)) == [
        ("systemctl", "disable", "--now", "uecwatchd-once.path"),
        ("systemctl", "disable", "--now", "uecwatchd-once.timer"),
        ("systemctl", "stop", "uecwatchd-once.service"),
    ]
    assert commands(FRESH) == []


def test_a_removal_ends_installations_and_first_what_starts_them() -> None:
    installers = ("uecwatchd-build.path", "uecwatchd-build.service")
    assert commands(replace(FRESH, installers=installers)) == [
        ("systemctl", "disable", "--now", "uecwatchd-build.path"),
        ("systemctl", "stop", "uecwatchd-build.service"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[state]\ndir = "/srv/state"\n', ["/srv/state"]),
        ('[state]\ndir = "state"\nwork = "/scratch"\n', ["/etc/uecwatchd/state", "/scratch"]),
        ('[state]\ndir = "/var/lib/uecwatchd/here"\n', []),
        ("[state]\ndir = 5\n", []),
        ("state = 5\n", []),
        ("[state\n", []),
        (None, []),
    ],
)
def test_a_purge_names_a_state_folder_elsewhere_and_leaves_it(text: str | None, said: list[str]) -> None:
    steps = plan_removal(replace(FRESH, text=text), purge=True)
    named = [step.text for step in steps if "under [state]" in step.text]
    assert [words.split()[1] for words in named] == said
    assert not any(isinstance(s.change, RemovePath) and str(s.change.path) in said for s in steps)


def test_folders_that_a_removal_took_are_made_again() -> None:
    made = "systemd-tmpfiles"
    for there in (True, False):
        steps = plan_setup(WANTED, replace(FRESH, has_folders=there))
        programs = [step.change.command[0] for step in steps if isinstance(step.change, RunProgram)]
        assert (made in programs) == (not there)
