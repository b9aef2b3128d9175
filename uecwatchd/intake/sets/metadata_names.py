"""Names of metadata: of sidecars, misspelt ones, and of copies that programs and people make of them."""

import re
from functools import lru_cache
from posixpath import basename

from uecwatchd.images import file_names
from uecwatchd.intake.sets.candidates import key_of
from uecwatchd.intake.spool.ignored import ENDINGS

# Suffixes of metadata: those of sidecars, misspellings of them, and those of other programs.
FAMILY = re.compile(r"\.(?:toml|json)\w?$|\.(?:tom|tml|oml|tol|jso|jsn|jon|tmol|tolm|otml|jsno|josn|ojsn)$"
                    r"|\.(?:ya?ml|ini|meta|metadata|sidecar|uecwatchd)$")  # fmt: skip
_MAYBE = re.compile(r"\.(?:t|j|o|y|ini|meta|sidecar|uecwatchd)", re.IGNORECASE)  # cheap, for most names
# Additions before or after a name when a program, or a person, makes a copy of the file.
_BEFORE = re.compile(r"^(?:\.~lock\.|\.#|~\$|[.#~\s]|copy of |copy_of_)+")
# A run of characters is matched only from its start and as a whole (possessive), because names are untrusted.
_COPY = r"(?<!\s)\s*+\(\d+\)|(?<![ _-])[ _-]++copy|\.sync-conflict-[\w-]+|_conflict-[\w-]+"
_OF_A_COPY = re.compile(rf"(?:{_COPY})(?=\.\w+$)")
_BEHIND = re.compile(
    rf"(?:(?<![~#\s])[~#\s]++|{_COPY}|\.txt|\.text|\.\d+|\.[0-9a-f]{{8}}"
    r"|(?<!\s)\s*+\([^()]*(?:conflicted copy|case conflict)[^()]*\)"
    rf"|{'|'.join(re.escape(ending) for ending in sorted(ENDINGS, key=len, reverse=True))}"
    r"|\.dpkg-\w+|\.ucf-\w+|\.(?:bak|old|orig|save)[-_.\d]+)$"
)
MOST_BEHIND = 8  # such suffixes in a row: more than any real file has
_RSYNC = re.compile(r"^(\..+)\.[a-z0-9]{6}$")  # a folded name: the six letters had any case
_EDGE = re.compile(r"(?<![\W_])[\W_]+$")
_TYPE = re.compile(r"[\W_]?(?:toml|json)$")  # with a wrong or missing dot


def is_metadata_name(path: str) -> bool:
    """Return True if a file has the name of metadata, or of a copy or a misspelling of it."""
    return bool(_MAYBE.search(path)) and bool(FAMILY.search(original_name(path)))


@lru_cache(maxsize=1000)  # it is called several times in a row for one name
def original_name(path: str) -> str:
    """Return a file's name without additions of copies: `a.toml` for `.a.toml.swp`."""
    name = file_names.fold_name(basename(path))
    if name.startswith("._"):  # the resource fork of another file, from macOS
        return ""
    if found := _RSYNC.match(name):
        name = found[1]
    name = _BEFORE.sub("", name)
    for _ in range(MOST_BEHIND):
        before, name = name, _BEHIND.sub("", name)
        if name == before:
            break
    return _OF_A_COPY.sub("", name)


def names_meant(path: str) -> set[str]:
    """Return the possible meanings of a stray at the top of a folder: sets and their files."""
    core = original_name(path)
    stems = {core, FAMILY.sub("", core), _TYPE.sub("", core), core.rpartition(".")[0]}
    stems |= {_EDGE.sub("", stem) for stem in stems}
    return {key for stem in stems if stem for key in (stem, key_of(stem))}
