"""The prose of package and tests stays plain: docstrings begin with a verb, and no word must be decoded."""

import pytest

from tests.prose import (
    TESTS,
    Place,
    Source,
    decodable,
    functions_with_docstrings,
    is_imperative,
    not_imperative,
    prose,
    prose_of_tests,
    sources,
)

# In projects that are pleasant to read it is 0 to 3 % of docstrings, and 0.1 to 0.4 words.
MOST_WITHOUT_VERB = 0.03
MOST_DECODABLE_PER_THOUSAND = 0.5


def excerpt(places: list[Place]) -> str:
    return "\n".join(map(str, places[:30]))


@pytest.fixture(scope="module")
def modules() -> list[Source]:
    return sources()


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Return the size in bytes.", True),
        ("Raise `Rejected` for a link.", True),
        ("What the file is.", False),
        ("Whether the file is whole.", False),
        ("The file that was found.", False),
        ("Returns the size.", False),
        ("`name` is the stem.", False),
    ],
)
def test_a_docstring_begins_with_a_verb_in_its_base_form(docstring: str, *, expected: bool) -> None:
    assert is_imperative(docstring) == expected


def test_words_are_counted_per_thousand() -> None:
    pieces = [Place("file", 1, "Whoever drops it shall wait"), Place("file", 2, "one two three four five")]
    found, rate = decodable(pieces)
    assert [place.text.split("]")[0] for place in found] == ["[Whoever", "[shall"]
    assert rate == 200


def test_the_measure_sees_the_package(modules: list[Source]) -> None:
    assert len(list(functions_with_docstrings(modules))) > 500
    files = {piece.file for piece in prose(modules)}
    assert {"README.md", "CHANGELOG.md", "systemd/uecwatchd.catalog", "etc/uecwatchd.toml"} <= files


def test_docstrings_of_functions_begin_with_a_verb(modules: list[Source]) -> None:
    places, share = not_imperative(modules)
    assert share <= MOST_WITHOUT_VERB, f"see tests/prose.py for the rule; for example:\n{excerpt(places)}"


def test_prose_has_no_words_to_decode(modules: list[Source]) -> None:
    places, rate = decodable(prose(modules))
    assert rate <= MOST_DECODABLE_PER_THOUSAND, f"see tests/prose.py for plain forms:\n{excerpt(places)}"


def test_tests_and_their_names_have_no_words_to_decode() -> None:
    pieces = list(prose_of_tests(sources(TESTS)))
    assert len({piece.file for piece in pieces}) > 100, "the measure sees the tests"
    places, rate = decodable(pieces)
    assert rate <= MOST_DECODABLE_PER_THOUSAND, f"see tests/prose.py for plain forms:\n{excerpt(places)}"
