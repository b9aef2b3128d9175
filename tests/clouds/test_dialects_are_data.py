"""No code asks which dialect it speaks: it reads a field of the record. The exceptions are listed here.

What is looked for in the syntax trees of the whole package:

- reading   the name or the versions of a dialect, or what is no field at all: a method of its name, say
- choosing  by a dialect or its name: a comparison, a `match`, a look into some other table than DIALECTS
- constant  one of the records by its own name
- word      a dialect's name spelled out

A dialect is whatever is called so or comes out of DIALECTS, under whatever name the module gives it then.
"""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

import uecwatchd
from uecwatchd.clouds.dialects import DIALECTS, Dialect

PACKAGE = Path(uecwatchd.__file__).parent
CONSTANTS = {name.upper() for name in DIALECTS}
FACTS = {field.name for field in fields(Dialect)} - {"name", "versions"}
# Of the language: they tell one record from another without a field.
TELLING = {"getattr", "hash", "id", "repr", "str", "vars"}
# Tables of every dialect: ours, and the embedded cloud's.
WHOLE = {"DIALECTS", "RULES"}
# The table itself, and the embedded cloud, which has its own so that no mistake can hide in both.
TABLES = ("clouds/dialects.py", "sandbox/")

How = Literal["reading", "choosing", "constant", "word"]


class Asking(NamedTuple):
    module: str
    function: str  # empty: the module itself
    how: How


MAY_ASK = {
    # What refusals mean
    Asking("clouds/errors/table.py", "", "word"): "has rows for one generation alone",
    Asking("clouds/errors/refusals.py", "fits", "choosing"): "compares a row with the dialect",
    Asking("clouds/errors/translate.py", "_refused", "reading"): "looks a refusal up in that table",
    # What a cloud is has to be found out, and is then presumed
    Asking("clouds/detect.py", "", "constant"): "names what a server may be found to be",
    Asking(
        "clouds/assumed_dialect.py", "", "constant"
    ): "presumes the generation that wants the most, until it is known",
    Asking("clouds/connected_clouds.py", "connect", "choosing"): "sees whether it is another one than before",
    Asking("cli/check/cloud.py", "", "constant"): "judges clocks by the strictest, until it is known",
    # People read it, or write it
    Asking("cli/check/cloud.py", "examine_cloud", "reading"): "prints it",
    Asking("cli/check/bucket.py", "_missing", "reading"): "prints it",
    Asking("service/cloud_reports.py", "detected", "reading"): "writes it into the ledger",
    Asking("service/cloud_reports.py", "describe_cloud", "reading"): "writes it into the journal",
    Asking("config/records.py", "", "word"): "has what may be configured",
    Asking("config/documents.py", "", "word"): "has what people write who mean one",
    Asking("clouds/connect.py", "connect_as", "reading"): "prints it",
    Asking("clouds/images.py", "_useful", "reading"): "prints it",
    Asking("clouds/registration.py", "_fitting_id", "reading"): "prints it",
    Asking("cli/verbs.py", "", "word"): "has a verb of the embedded cloud's own name",
    Asking("cli/options.py", "add_sandbox_options", "word"): "has a default of that name",
    Asking("cli/sandbox.py", "installed_by", "word"): "names the extra that is called like it",
}


class Reader:
    """Reads one module."""

    def __init__(self, module: str, source: str) -> None:
        self._module = module
        self._tree = ast.parse(source)
        self._known: set[str] = set()
        while more := {name for name, value in self._named() if self._is_dialect(value)} - self._known:
            self._known |= more

    def askings(self) -> Iterator[Asking]:
        yield from self._within(self._tree, "")

    def _within(self, node: ast.AST, function: str) -> Iterator[Asking]:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if how := self._how(node):
            yield Asking(self._module, function, how)
        for child in ast.iter_child_nodes(node):
            yield from self._within(child, function)

    def _how(self, node: ast.AST) -> How | None:
        match node:
            case ast.Constant(value=str(word)) if word in DIALECTS:
                return "word"
            case ast.alias(name=name) | ast.Attribute(attr=name) if name in CONSTANTS:
                return "constant"
            case ast.Attribute(value=value, attr=name) if self._is_dialect(value) and name not in FACTS:
                return "reading"
            case _ if self._chooses(node):
                return "choosing"
        return None

    def _chooses(self, node: ast.AST) -> bool:
        match node:
            case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Name(id=every)]) if (
                every in WHOLE
            ):
                return False  # whether there is such a one
            case ast.Compare(left=left, comparators=others):
                return any(self._is_dialect(side) for other in (left, *others) for side in _parts(other))
            case ast.Match(subject=subject):
                return any(self._is_dialect(part) for part in _parts(subject))
            case ast.Subscript(value=table, slice=key) if not _is_table(table):
                return any(self._is_dialect(part) for part in _parts(key))
            case ast.Call(func=ast.Attribute(value=table, attr="get"), args=[key, *_]) if not _is_table(
                table
            ):
                return self._is_dialect(key)
            case ast.Call(func=ast.Name(id=name), args=[of, *_]) if name in TELLING:
                return self._is_dialect(of)
        return False

    def _is_dialect(self, node: ast.AST) -> bool:
        match node:
            case ast.Name(id=name):
                return name.endswith("dialect") or name in self._known | CONSTANTS
            case ast.Attribute(attr=name) if name.endswith("dialect"):
                return True
            case ast.Attribute(value=value, attr="name" | "versions"):
                return self._is_dialect(value)
            case ast.Subscript(value=table) | ast.Call(func=ast.Attribute(value=table, attr="get")):
                return _is_table(table)
            case ast.BoolOp(values=values):
                return any(self._is_dialect(value) for value in values)
            case ast.NamedExpr(value=value):
                return self._is_dialect(value)
        return False

    def _named(self) -> Iterator[tuple[str, ast.AST]]:
        """Names, and what they are given."""
        a_dialect = ast.Name("dialect")
        for node in ast.walk(self._tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    yield name, value
                case ast.NamedExpr(target=ast.Name(id=name), value=value):
                    yield name, value
                case ast.arg(arg=name, annotation=ast.Name(id="Dialect")):
                    yield name, a_dialect
                case ast.For(target=target, iter=many) | ast.comprehension(target=target, iter=many):
                    if any(_is_table(part) for part in ast.walk(many)):
                        yield from (
                            (part.id, a_dialect) for part in _parts(target) if isinstance(part, ast.Name)
                        )


def _is_table(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "DIALECTS"


def _parts(node: ast.expr) -> list[ast.expr]:
    """A tuple's, or the one thing."""
    return node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]


def read(module: str, source: str) -> set[Asking]:
    return set(Reader(module, source).askings())


def test_only_listed_places_compare_the_dialect() -> None:
    asking: set[Asking] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        if not module.startswith(TABLES):
            asking |= read(module, path.read_text())
    assert asking == set(MAY_ASK)


# --- the reader itself -------------------------------------------------------------------------------------

IMPORT_UEC = "from uecwatchd.clouds.dialects import UEC"
BRANCHES = {
    "a name is compared": ("if cloud.dialect.name == other: pass", {"reading", "choosing"}),
    "a configured name is compared": ("if settings.dialect != other: pass", {"choosing"}),
    "a record is compared": (f"{IMPORT_UEC}\nif cloud.dialect is UEC: pass", {"constant", "choosing"}),
    "records are compared": ("if cloud.dialect in (first, second): pass", {"choosing"}),
    "a record is reached through its module": (
        "from uecwatchd.clouds import dialects\ndialects.UEC",
        {"constant"},
    ),
    "the beginning of a name": ("d = cloud.dialect.name\nif d.startswith('euca'): pass", {"reading"}),
    "the beginning of a configured name": ("if settings.dialect.startswith('euca'): pass", {"reading"}),
    "a table by name": ("wait = WAITS[cloud.dialect.name]", {"reading", "choosing"}),
    "a table by record": ("wait = WAITS.get(cloud.dialect, 3)", {"choosing"}),
    "the versions": ("if 'Eucalyptus' in cloud.dialect.versions: pass", {"reading", "choosing"}),
    "a set of names": ("OLD = frozenset({'uec', 'euca3'})\nif name in OLD: pass", {"word"}),
    "a name that is matched": ("match name:\n    case 'uec': pass", {"word"}),
    "a record that is matched": ("match cloud.dialect:\n    case old: pass", {"choosing"}),
    "a parameter of another name": ("def wait(d: Dialect): return d.name", {"reading"}),
    "a variable of another name": ("d = cloud.dialect\nwait = WAITS[d]", {"choosing"}),
    "one of all": ("for one in DIALECTS.values():\n    if one.name < 'b': pass", {"reading", "choosing"}),
    "one out of all": ("if (one := DIALECTS[name]).name < 'b': pass", {"reading", "choosing"}),
    "an attribute by its name": ("which = getattr(cloud.dialect, 'name')", {"choosing"}),
}


@pytest.mark.parametrize(("source", "how"), BRANCHES.values(), ids=BRANCHES.keys())
def test_a_branch_on_the_dialect_is_found(source: str, how: set[How]) -> None:
    assert {asking.how for asking in read("clouds/objects.py", source)} == how
    assert not read("clouds/objects.py", source) & MAY_ASK.keys()


@pytest.mark.parametrize(
    "source",
    [
        "if cloud.dialect.filters: pass",
        "if size > cloud.dialect.image_limit.size: pass",
        "if image.state not in cloud.dialect.pending_states: pass",
        "name = fitting_name(cloud.dialect, cloud.name)",
        "if settings.dialect not in DIALECTS: pass",
        "if arguments.dialect not in RULES: pass",
        "dialect = DIALECTS.get(settings.dialect) or presumed",
        "needs = {name: dialect.windows_needs for name, dialect in dialects.items()}",
    ],
)
def test_reading_a_field_of_a_dialect_is_no_branch(source: str) -> None:
    assert read("clouds/objects.py", source) == set()
