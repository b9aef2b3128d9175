"""Users and groups of this host, each asked for by its name."""

from uecwatchd.cli.setup.host_facts import existing_users, groups_of


def test_users_are_those_names_that_exist() -> None:
    assert existing_users(("root", "no-such-user")) == {"root"}


def test_a_group_has_users_whose_primary_group_it_is_and_an_unknown_group_is_left_out() -> None:
    assert groups_of(("root",), among=("root", "no-such-group")) == {"root": frozenset({"root"})}
    assert groups_of(("root",), among=("nogroup",)) == {"nogroup": frozenset()}
