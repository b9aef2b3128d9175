"""Measure the prose and the plan of the package, and the wording of its tests.

`python tests/prose.py` prints the figures, and with `--all` every place of (a) and (b). Ten figures, each
with the worst places (file:line):

(a) Function docstrings whose first line does not begin with an imperative verb.
(b) Decodable words per thousand words of prose: words that readers of English as a second language decode
    instead of read, or old ones. Prose is docstrings, comments, string literals with a space, and the files
    in TEXTS.
    The tests are counted apart, with the names of their functions.
(c) Private functions and methods with exactly one reference.
(d) Classes with more than MOST_ATTRIBUTES attributes.
(e) Modules and packages at the top level of the package.
(f) Class names that are defined twice.
(g) Docstrings whose first line has more than MOST_WORDS words.
(h) Relative clauses in the first lines of docstrings.
(i) `Raises X` of a docstring, with an X that is no class of the package, of its imports or of Python.
(j) First lines that begin with a question word, such as `What` or `Whether`. The tests are counted too.

`tests/test_prose.py` asserts bounds for (a), (b) and (g) to (j). The others are for a reviewer to read.
"""

import ast
import builtins
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "uecwatchd"
TESTS = ROOT / "tests"
WORD_LISTS = frozenset({"tests/prose.py", "tests/test_prose.py"})  # which quote the words
TEXTS = ("README.md", "CHANGELOG.md", "etc/*.toml", "systemd/*")

MOST_ATTRIBUTES = 8
MOST_WORDS = 20  # of a first line: more does not fit beside a name in an index
WORST = 15

# Verbs that a docstring may begin with. A missing verb can be added; a noun or a question word cannot.
VERBS = frozenset(
    re.findall(
        r"\w+",
        """
        abort accept acquire add adjust admit advance allow announce answer append apply archive ask
        assemble assert assign attach await back bail become begin bind block boot bound bring build bundle
        calculate call cancel carry change check choose claim clamp clean clear close collect combine come
        compare complain complete compose compress compute concatenate connect construct consult consume
        continue convert cool copy correct count cover create cut deal decide declare decode decompress
        decrypt deduplicate defer define deflate delay delete deliver demand demote deny deregister derive
        describe detach detect determine digest disable discard dispatch display distribute divide do
        download draw drive drop dump duplicate echo embed emit empty enable encode encrypt end enforce
        ensure enter enumerate escape establish estimate evaluate evict examine exchange exclude execute
        exit expand expect explain expose extend extract fail feed fetch fill filter find finish fit flush
        fold follow forbid force forget form format forward free freeze gather generate get give go grant
        group grow guard guess halt hand handle hash have hear hide hint hold hook hurry identify ignore
        implement import impose include increase indent index infer inflate inform initialize initiate
        inject insert inspect install intercept interleave interpret interrupt invalidate invent invoke
        issue iterate join judge keep kill know label launch lay learn leave lend let lift limit link list
        listen load locate lock log look lower make map mark mask match measure mention merge migrate mirror
        mix mount move name narrow negotiate nest normalize note notify number observe obtain occupy offer
        omit open order overwrite pack pad pair parallelize parse pass patch pause peek pick pin place play
        point poll pop post postpone pour predict prefer prefix prepare present preserve press prevent print
        probe process produce prolong promote prompt propagate propose protect prove provide publish pull
        purge push put query queue quote raise rank reach read readjust rebuild receive recognise recognize
        reconnect record recover recreate recurse redact reduce refresh refuse register reject release
        reload rely remember remove rename render reopen reorder repack repair repeat replace reply report
        represent request require reread resend reserve reset resolve respond restart restore restrict
        resubmit resume retain retire retrieve retry return retype reuse reverse revert revoke rewrite roll
        rotate round run sanitize satisfy save say scale scan schedule seal search see select send separate
        serialize serve set share shift shorten show shrink shut sign simulate skip sleep slow snapshot sort
        speak spell split spread squeeze start state step stop store stream strike strip substitute suggest
        sum summarize support suppress suspend swap sweep switch synchronize synthesize take tell terminate
        test throttle tidy time toggle total touch trace track transfer translate trim truncate try turn
        unbundle undo unescape unlink unlock unpack unpin unquote unwrap update upload use validate verify
        visit wait wake walk warm warn watch widen wipe withdraw withhold word work wrap write yield
        """,
    )
)

# What is decodable, by pattern. Each has a plain form: "whoever" -> "the process that", "anew" -> "again", …
DECODABLE = re.compile(
    r"\b(?:"
    r"who(?:so)?ever|whom(?:ever)?|whatsoever|whichever|wherever|whensoever|howsoever"
    r"|(?:of|to|for|from|by|at) (?:which|whose)"
    r"|(?:for|to|of|from|by) who"
    r"|nor|shall|ought|anew|lest|albeit|hence(?:forth)?|hitherto|likewise|thence|whence|whereby|wherein|whereof"
    r"|there(?:of|in|by|upon|from|to)|here(?:in|by|of)|unto|upon|whilst|amongst|nought|naught"
    r"|put down|told of|tells? of|speaks? of|nobody needs?|be (?:it|they)|as yet|or other"
    r"|has a say|have a say|heed(?:s|ed)?|comes? to naught|came of|becomes? of|goes? for|by that name"
    r"|it be|needs? be|lies?|stands? for|stood for|meanwhile"
    r"|told(?! (?:to|not to|what|which|how|that|so|about|who|whose|otherwise)\b)"
    r")\b",
    re.IGNORECASE,
)
WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")

# A noun clause in the place of a plain noun: "Progress of one upload" is plainer than "How far an upload is".
QUESTION = re.compile(r"(?:what|how|where|whether|which|whose|who|why)\b", re.IGNORECASE)
# A relative pronoun and the word before it. `that` is none after these: "so that", "check that", "with that".
RELATIVE = re.compile(r"([\w`)']+),? (which|who|whose|whom|where|that)\b", re.IGNORECASE)
BEFORE_OTHER_THAT = frozenset(
    re.findall(
        r"\w+",
        """
        so as is of to for in with by from on at than and or but like after before was are if only not until
        about given over between under against does check ensure say says tell note notice assert sure prove
        report know known knows means mean learn pretend remember told written warn read show test
        """,
    )
)
RAISES = re.compile(r"\b[Rr]aises?:? +((?:`*[A-Z]\w+`*(?:, | or |, or )?)+)")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Place:
    """One finding, or one piece of prose: file, line and text."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed module. `nodes` are those of its syntax tree, walked once for all measures."""

    file: str
    text: str
    nodes: tuple[ast.AST, ...]

    @classmethod
    def parse(cls, file: str, text: str) -> "Source":
        return cls(file, text, tuple(ast.walk(ast.parse(text))))

    def at(self, node: ast.stmt | ast.expr, text: str) -> Place:
        return Place(self.file, node.lineno, text)


def sources(package: Path = PACKAGE) -> list[Source]:
    """Parse every module below a folder: the package, or the tests."""
    found = []
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(Source.parse(str(path.relative_to(package.parent)), text))
    return found


# --- (a) docstrings ---------------------------------------------------------------------------------------


def is_imperative(docstring: str) -> bool:
    """Tell from its first word if a docstring is an order: the word is one of VERBS, in its base form."""
    first = re.match(r"\s*([A-Za-z]+)", docstring)
    return first is not None and first[1].lower() in VERBS


def functions_with_docstrings(modules: Iterable[Source]) -> Iterator[tuple[Place, str]]:
    """Yield place and docstring of each function and method; a property is an attribute, and is left out."""
    for module in modules:
        for node in module.nodes:
            if isinstance(node, Function) and not _is_property(node) and (text := ast.get_docstring(node)):
                yield module.at(node, f"{node.name}: {text.splitlines()[0]}"), text


def _is_property(node: Function) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def not_imperative(modules: Iterable[Source]) -> tuple[list[Place], float]:
    """Return the docstrings that do not begin with a verb, and their share of all, 0 to 1."""
    all_of_them = list(functions_with_docstrings(modules))
    found = [place for place, text in all_of_them if not is_imperative(text)]
    return found, len(found) / max(len(all_of_them), 1)


def first_lines(modules: Iterable[Source]) -> Iterator[Place]:
    """Yield the first line of each docstring: of modules, classes, functions and properties."""
    for module, node, text in _docstrings(modules):
        yield module.at(node, text.splitlines()[0])


def _docstrings(modules: Iterable[Source]) -> Iterator[tuple[Source, ast.stmt, str]]:
    for module in modules:
        for node in module.nodes:
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                yield module, node.body[0], text


def long_first_lines(lines: Iterable[Place]) -> list[Place]:
    """Return the first lines with more than MOST_WORDS words, the longest first."""
    counted = [(len(WORD.findall(line.text)), line) for line in lines]
    found = [each for each in counted if each[0] > MOST_WORDS]
    return [line for _, line in sorted(found, key=lambda each: -each[0])]


def relative_clauses(lines: Iterable[Place]) -> tuple[list[Place], float, int]:
    """Return the lines with relative clauses, their share, 0 to 1, and the most clauses in one line.

    The lines with the most clauses come first, and of these the longest.
    """
    counted = [(_clauses(line.text), line) for line in lines]
    counted.sort(key=lambda each: (-each[0], -len(each[1].text)))
    found = [line for count, line in counted if count]
    return found, len(found) / max(len(counted), 1), counted[0][0] if counted else 0


def _clauses(line: str) -> int:
    return sum(
        match[2].lower() != "that" or match[1].strip("`").lower() not in BEFORE_OTHER_THAT
        for match in RELATIVE.finditer(line)
    )


def noun_clauses(lines: Iterable[Place]) -> list[Place]:
    """Return the lines that begin with a question word."""
    return [line for line in lines if QUESTION.match(line.text)]


def unknown_errors(modules: Iterable[Source]) -> list[Place]:
    """Return each `Raises X` whose X is no class that a reader could look up."""
    modules = list(modules)
    known = set(dir(builtins)) | {node.name for _, node in _classes(modules)} | _imported(modules)
    return [
        module.at(node, f"Raises {name}")
        for module, node, text in _docstrings(modules)
        for names in RAISES.findall(text)
        for name in re.findall(r"\w+", names)
        if name != "or" and name not in known
    ]


def _imported(modules: Iterable[Source]) -> set[str]:
    return {
        (alias.asname or alias.name).split(".")[-1]
        for module in modules
        for node in module.nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


# --- (b) words --------------------------------------------------------------------------------------------


def prose(modules: Iterable[Source], root: Path = ROOT) -> Iterator[Place]:
    """Yield every piece of prose: of the modules, and the lines of the files in TEXTS."""
    for module in modules:
        yield from _comments(module)
        yield from _literals(module)
    for path in sorted(path for pattern in TEXTS for path in root.glob(pattern)):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield Place(str(path.relative_to(root)), number, line)


def prose_of_tests(modules: Iterable[Source]) -> Iterator[Place]:
    """Yield every piece of prose in tests. The name of a function is one: it says the rule."""
    for module in modules:
        if module.file not in WORD_LISTS:
            yield from _comments(module)
            yield from _literals(module)
            yield from _function_names(module)


def _function_names(module: Source) -> Iterator[Place]:
    for node in module.nodes:
        if isinstance(node, Function):
            yield module.at(node, node.name.replace("_", " "))


def _comments(module: Source) -> Iterator[Place]:
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            yield Place(module.file, token.start[0], token.string)


def _literals(module: Source) -> Iterator[Place]:
    """Yield docstrings, and string literals with a space in them, by line."""
    for node in module.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            for offset, line in enumerate(node.value.splitlines()):
                yield Place(module.file, node.lineno + offset, line)


def decodable(pieces: Iterable[Place]) -> tuple[list[Place], float]:
    """Return the decodable words, each with its line, and how many there are in a thousand words."""
    found, words = [], 0
    for piece in pieces:
        words += len(WORD.findall(piece.text))
        for match in DECODABLE.finditer(piece.text):
            found.append(Place(piece.file, piece.line, f"[{match[0]}] {piece.text.strip()}"))
    return found, 1000 * len(found) / max(words, 1)


# --- (c) to (f): the plan ---------------------------------------------------------------------------------


def called_once(modules: Iterable[Source]) -> tuple[list[Place], int]:
    """Return the private functions and methods with one reference, and how many private ones there are."""
    found, total = [], 0
    for module in modules:
        references = Counter(_references(module.nodes))
        for node in module.nodes:
            if isinstance(node, Function) and re.match(r"_(?!_)", node.name):
                total += 1
                if references[node.name] == 1:
                    found.append(module.at(node, node.name))
    return found, total


def _references(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def wide_classes(modules: Iterable[Source]) -> list[Place]:
    """Return the classes with more than MOST_ATTRIBUTES attributes, the widest first."""
    found = []
    for module, node in _classes(modules):
        if (count := len(attributes(node))) > MOST_ATTRIBUTES:
            found.append((count, module.at(node, f"{node.name} has {count} attributes")))
    return [place for _, place in sorted(found, key=lambda each: -each[0])]


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the names of a class' fields, and of what its methods assign to `self`."""
    fields = {
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    assigned = {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and isinstance(part.value, ast.Name)
        and part.value.id == "self"
    }
    return fields | assigned


def _classes(modules: Iterable[Source]) -> Iterator[tuple[Source, ast.ClassDef]]:
    for module in modules:
        for node in module.nodes:
            if isinstance(node, ast.ClassDef):
                yield module, node


def top_level(package: Path = PACKAGE) -> list[str]:
    """Return the modules and packages at the top of the package, without `__init__` and `__main__`."""
    entries = (path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())
    return sorted(path.stem for path in entries if not path.stem.startswith("__"))


def twin_classes(modules: Iterable[Source]) -> list[Place]:
    """Return every class whose name another class has too."""
    classes = [(module.at(node, node.name), node.name) for module, node in _classes(modules)]
    times = Counter(name for _, name in classes)
    return sorted((place for place, name in classes if times[name] > 1), key=lambda place: place.text)


# --- the report -------------------------------------------------------------------------------------------


def report() -> Iterator[str]:
    """Yield the figures, line by line, each with its worst places."""
    modules = sources()
    clauses, share = not_imperative(modules)
    words, rate = decodable(prose(modules))
    once, private = called_once(modules)
    wide, twins, top = wide_classes(modules), twin_classes(modules), top_level()
    yield f"(a) docstrings that begin with no verb: {len(clauses)}, {share:.1%} of all (goal: under 3%)"
    yield from _by_file(clauses)
    yield f"(b) decodable words: {len(words)}, {rate:.2f} per thousand (goal: under 0.5)"
    yield "    " + ", ".join(f"{word} {count}" for word, count in _by_word(words))
    yield from _by_file(words)
    in_tests, rate = decodable(prose_of_tests(sources(TESTS)))
    yield f"(b) decodable words in tests: {len(in_tests)}, {rate:.2f} per thousand (goal: under 0.5)"
    yield from _by_file(in_tests)
    yield f"(c) private functions with one reference: {len(once)} of {private}"
    yield from _by_file(once)
    yield f"(d) classes with more than {MOST_ATTRIBUTES} attributes: {len(wide)}"
    yield from (f"    {place}" for place in wide)
    yield f"(e) modules and packages at the top level: {len(top)}"
    yield f"    {' '.join(top)}"
    yield f"(f) classes with the name of another: {len(twins)}"
    yield from (f"    {place}" for place in twins)
    long, (relative, share, most) = (
        long_first_lines(first_lines(modules)),
        relative_clauses(first_lines(modules)),
    )
    yield f"(g) first lines with more than {MOST_WORDS} words: {len(long)}"
    yield from (f"    {place}" for place in long)
    yield f"(h) first lines with a relative clause: {len(relative)}, {share:.1%} of all; {most} in the worst"
    yield from (f"    {place}" for place in relative[:WORST])
    unknown = unknown_errors(modules)
    yield f"(i) raised classes that do not exist: {len(unknown)}"
    yield from (f"    {place}" for place in unknown)
    clauses = noun_clauses([*first_lines(modules), *first_lines(sources(TESTS))])
    yield f"(j) first lines that begin with a question word: {len(clauses)}"
    yield from (f"    {place}" for place in clauses)


def _by_word(words: Iterable[Place]) -> list[tuple[str, int]]:
    return Counter(place.text.split("]")[0].lstrip("[").lower() for place in words).most_common()


def _by_file(places: Iterable[Place]) -> Iterator[str]:
    """Yield the files with the most findings, each with its first one."""
    first: dict[str, Place] = {}
    counts: Counter[str] = Counter()
    for place in places:
        first.setdefault(place.file, place)
        counts[place.file] += 1
    yield from (f"    {count:4} {first[file]}" for file, count in counts.most_common(WORST))


if __name__ == "__main__":
    if sys.argv[1:] == ["--all"]:
        found = [*not_imperative(sources())[0], *decodable(prose(sources()))[0]]
        found += decodable(prose_of_tests(sources(TESTS)))[0]
        sys.stdout.writelines(
            f"{place}\n" for place in sorted(found, key=lambda place: (place.file, place.line))
        )
    else:
        sys.stdout.writelines(f"{line}\n" for line in report())
