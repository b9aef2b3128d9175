"""The prose of package and tests stays plain: docstrings begin with a verb, and no word must be decoded."""

import pytest

from tests.prose import (
    TESTS,
    Place,
    Source,
    decodable,
    first_lines,
    functions_with_docstrings,
    is_imperative,
    long_first_lines,
    not_imperative,
    noun_clauses,
    prose,
    prose_of_tests,
    relative_clauses,
    sources,
    unknown_errors,
)

# In projects that are pleasant to read it is 0 to 3 % of docstrings, and 0.1 to 0.4 words.
MOST_WITHOUT_VERB = 0.03
MOST_DECODABLE_PER_THOUSAND = 0.5
# One short clause is often the plainest way to say which thing is meant. Two are hard to take in at once.
MOST_CLAUSES_IN_A_LINE = 1
MOST_WITH_A_CLAUSE = 0.33  # as it is now: it may become less, and not more


def excerpt(places: list[Place]) -> str:
    return "\n".join(map(str, places[:30]))


@pytest.fixture(scope="module")
def modules() -> list[Source]:
    return sources()


@pytest.fixture(scope="module")
def pieces(modules: list[Source]) -> list[Place]:
    return list(prose(modules))


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


def test_the_measure_sees_the_package(modules: list[Source], pieces: list[Place]) -> None:
    assert len(list(functions_with_docstrings(modules))) > 500
    files = {piece.file for piece in pieces}
    assert {"README.md", "CHANGELOG.md", "systemd/uecwatchd.catalog", "etc/uecwatchd.toml"} <= files


def test_docstrings_of_functions_begin_with_a_verb(modules: list[Source]) -> None:
    places, share = not_imperative(modules)
    assert share <= MOST_WITHOUT_VERB, f"see tests/prose.py for the rule; for example:\n{excerpt(places)}"


def test_prose_has_no_words_to_decode(pieces: list[Place]) -> None:
    places, rate = decodable(pieces)
    assert rate <= MOST_DECODABLE_PER_THOUSAND, f"see tests/prose.py for plain forms:\n{excerpt(places)}"


def test_tests_and_their_names_have_no_words_to_decode() -> None:
    pieces = list(prose_of_tests(sources(TESTS)))
    assert len({piece.file for piece in pieces}) > 100, "the measure sees the tests"
    places, rate = decodable(pieces)
    assert rate <= MOST_DECODABLE_PER_THOUSAND, f"see tests/prose.py for plain forms:\n{excerpt(places)}"


def test_first_lines_are_short(modules: list[Source]) -> None:
    lines = list(first_lines(modules))
    assert len(lines) > 1000, "the measure sees the docstrings"
    assert long_first_lines(lines) == [], f"too long:\n{excerpt(long_first_lines(lines))}"


def test_first_lines_have_few_relative_clauses(modules: list[Source]) -> None:
    places, share, most = relative_clauses(first_lines(modules))
    assert most <= MOST_CLAUSES_IN_A_LINE, f"divide these, or use an adjective:\n{excerpt(places)}"
    assert share <= MOST_WITH_A_CLAUSE, f"for example:\n{excerpt(places)}"


def test_first_lines_begin_with_no_question_word(modules: list[Source]) -> None:
    places = noun_clauses([*first_lines(modules), *first_lines(sources(TESTS))])
    assert places == [], f"name it by a plain noun:\n{excerpt(places)}"


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("Return the sets that are held.", 1),
        ("Return the cloud, which is away, and the user who asks.", 2),
        ("Check that the file is whole, so that nothing is lost.", 0),
        ("Return a file with that name.", 0),
    ],
)
def test_relative_clauses_are_told_from_other_uses_of_that(line: str, count: int) -> None:
    assert relative_clauses([Place("file", 1, line)])[2] == count


def test_docstrings_name_only_errors_that_exist(modules: list[Source]) -> None:
    places = unknown_errors(modules)
    assert places == [], f"no such class:\n{excerpt(places)}"


def test_an_error_that_does_not_exist_is_found() -> None:
    text = '''def f():
    """Do it.

    Raises Vanished: always. Raises `ValueError` or Absent.
    """
'''
    (found, other) = unknown_errors([Source.parse("file", text)])
    assert (found.text, other.text) == ("Raises Vanished", "Raises Absent")


def test_a_long_first_line_is_found() -> None:
    line = Place("file", 1, "word " * 21)
    assert long_first_lines([line, Place("file", 2, "word " * 20)]) == [line]
