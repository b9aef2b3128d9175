#!/usr/bin/env python3
"""Makes the manual pages and the completions of shells: `build.py FOLDER`.

Needs uecwatchd in this Python, the library shtab, and the program go-md2man. The sources are the parser of
the command line, the commented configuration in `etc/uecwatchd.toml`, and the texts beside this script.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab

from uecwatchd.cli.verbs import VERBS, Parser, build_parser

HERE = Path(__file__).resolve().parent
CONFIGURATION = HERE.parent / "uecwatchd.toml"
KEY = re.compile(r"#?(?P<key>[a-z0-9_]+) = (?P<value>.*)")
# A sentence about the file as such.
AS_A_PAGE = (
    'A line that begins with "#" shows the default, or an example, and can be left out.',
    "The values here are the defaults or examples.",
)
UNDERSCORES = re.compile(r"[\w~/.=]*__[\w=]*")  # Markdown would take them for emphasis
# The names of sets: every set with a report in the default folder. Members may read these, too. They also
# choose the names, and root may press the key: in bash a name with a special character is not offered, since
# the shell would expand it; zsh and fish quote it.
SET_NAMES = {
    "bash": """
_uecwatchd_sets() {
  local report name
  for report in /var/spool/uecwatchd/*.uec.json; do
    name=${report##*/} name=${name%.uec.json}
    case $name in -* | *[!A-Za-z0-9._+@%=,:-]*) continue ;; esac
    [[ $name != "$1"* ]] || printf '%s\\n' "$name"
  done
}
""",
    "zsh": """
_uecwatchd_sets() {
  local -a names=(/var/spool/uecwatchd/*.uec.json(N:t))
  compadd -- ${names%.uec.json}
}
""",
}
FISH = """# Completions of uecwatchd for fish.
function __uecwatchd_sets
    for report in /var/spool/uecwatchd/*.uec.json
        string replace -r '.*/(.*)\\\\.uec\\\\.json$' '$1' -- $report
    end
end
complete -c uecwatchd -f
"""
# What fish offers for an argument, by the name of its value.
FISH_VALUES = {
    "SET": ("-a '(__uecwatchd_sets)'",),
    "FILE": ("-F",),
    "FILE|SET": ("-a '(__uecwatchd_sets)'", "-F"),
    "MANIFEST": ("-F",),
    "DIR": ("-a '(__fish_complete_directories)'",),
}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, markdown in manual_pages().items():
        ended = subprocess.run(["go-md2man"], input=markdown.encode(), stdout=subprocess.PIPE, check=True)
        (folder / name).write_bytes(ended.stdout)
    for name, text in completions().items():
        (folder / name).write_text(text)


def manual_pages() -> dict[str, str]:
    """Return the Markdown of each page, by the name of the page's file."""
    program = (HERE / "uecwatchd.8.md").read_text()
    return {
        "uecwatchd.8": program.replace("@VERBS@\n", "\n".join(verbs())),
        "uecwatchd.toml.5": "\n".join(configuration()),
        "uecwatchd-sidecar.5": (HERE / "uecwatchd-sidecar.5.md").read_text(),
    }


# --- the command line -------------------------------------------------------------------------------------


def verb_parsers() -> dict[str, argparse.ArgumentParser]:
    found = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(next(found).choices)


def verbs() -> Iterator[str]:
    """Yield the lines about all verbs."""
    parsers = verb_parsers()
    for verb in VERBS:
        yield from (f"## {verb.name}", "")
        yield from (f"{verb.help[0].upper()}{verb.help[1:]}.", "")
        yield from (f"`{usage_of(parsers[verb.name])}`", "")
        for action in parsers[verb.name]._actions:
            if {"--config", "--unit", "--help"}.isdisjoint(action.option_strings):
                yield from option(action)
        if verb.appendix is None and parsers[verb.name].epilog:
            yield from (str(parsers[verb.name].epilog), "")


def usage_of(parser: argparse.ArgumentParser) -> str:
    text = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    return re.sub(r" \[-h\]| \[--config FILE\]| \[--unit NAME\]", "", text)


def option(action: argparse.Action) -> Iterator[str]:
    """Yield one option or argument as a term with its text."""
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    names = " ".join(part for part in (", ".join(action.option_strings), str(value)) if part)
    if action.choices:
        names += f" ({', '.join(map(str, action.choices))})"
    yield from (f"**{names}**", f": {(action.help or '') % {'default': action.default}}", "")


# --- the configuration ------------------------------------------------------------------------------------


def configuration() -> Iterator[str]:
    """Yield the lines of the page about the configuration."""
    yield from ('uecwatchd.toml 5 "" uecwatchd "File formats"', "====", "")
    yield from ("# NAME", "", "uecwatchd.toml - configuration of uecwatchd", "")
    yield from ("# SYNOPSIS", "", "/etc/uecwatchd/uecwatchd.toml", "", "# DESCRIPTION", "")
    text = CONFIGURATION.read_text().replace(*AS_A_PAGE)
    yield from paragraphs(text.splitlines())
    yield from ("# SEE ALSO", "", "**uecwatchd**(8), **uecwatchd-sidecar**(5)")


def paragraphs(lines: list[str]) -> Iterator[str]:
    """Yield sections, and each group of keys as a term with the comment before it as its text."""
    comment: list[str] = []
    keys: list[str] = []
    for line in [*lines, ""]:
        if found := KEY.fullmatch(line):
            keys.append(f"**{found['key']} = {found['value']}**")
        elif line.startswith("#"):
            if keys:
                yield from group(keys, comment)
                keys, comment = [], []
            comment.append(line[2:])
        elif keys:
            yield from group(keys, comment)
            keys, comment = [], []
        elif line.startswith("["):
            yield from (f"# {line.strip('[]').upper()}", "", *prose(comment), "")
            comment = []
        elif comment and not line:
            if KEY.fullmatch(f"#{comment[-1]}"):
                continue
            yield from (*prose(comment), "")
            comment = []


def group(keys: list[str], comment: list[str]) -> Iterator[str]:
    for key in keys:
        yield from (key, "", *prose(comment), "")


def prose(comment: list[str]) -> Iterator[str]:
    """Yield a comment as Markdown: lines with three blanks in front are an example."""
    for line in comment:
        yield f"    {line.strip()}" if line.startswith("  ") else UNDERSCORES.sub(r"`\g<0>`", line)


# --- completion -------------------------------------------------------------------------------------------


def completions() -> dict[str, str]:
    parser = completed_parser()
    made = {
        f"uecwatchd.{shell}": shtab.complete(parser, shell=shell, preamble=SET_NAMES)
        for shell in ("bash", "zsh")
    }
    return {**made, "uecwatchd.fish": FISH + "\n".join(fish()) + "\n"}


def completed_parser() -> Parser:
    """Return the parser with what is completed after each argument: files, or names of sets."""
    parser = build_parser()
    for one in verb_parsers_of(parser):
        for action in one._actions:
            if action.metavar in ("SET", "FILE|SET"):
                action.complete = {"bash": "_uecwatchd_sets", "zsh": "_uecwatchd_sets"}  # type: ignore[attr-defined]
            elif action.metavar in ("FILE", "MANIFEST"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return parser


def verb_parsers_of(parser: Parser) -> list[argparse.ArgumentParser]:
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return list(next(found).choices.values())


def fish() -> Iterator[str]:
    """Yield the lines for fish, which shtab does not know."""
    parsers = verb_parsers()
    for action in build_parser()._actions:
        yield from fish_options(action, "__fish_use_subcommand")
    for verb in VERBS:
        yield f"complete -c uecwatchd -n __fish_use_subcommand -a {verb.name} -d {quoted(verb.help)}"
        here = f"'__fish_seen_subcommand_from {verb.name}'"
        for action in parsers[verb.name]._actions:
            yield from fish_options(action, here)
            if not action.option_strings and action.metavar in FISH_VALUES:
                for value in FISH_VALUES[action.metavar]:
                    yield f"complete -c uecwatchd -n {here} {value}"


def fish_options(action: argparse.Action, here: str) -> Iterator[str]:
    """Yield the lines about one option: where it is offered, and what is offered as its value."""
    value = ""
    if action.nargs not in (0, "?"):  # with "?" the next word may belong to something else
        value = " -x"
        if action.choices:
            value += f" -a {quoted(' '.join(map(str, action.choices)))}"
        elif action.metavar in FISH_VALUES:
            value = f" -r {' '.join(FISH_VALUES[action.metavar])}"
    for name in action.option_strings:
        kind = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
        yield f"complete -c uecwatchd -n {here} {kind}{value} -d {quoted(action.help or name)}"


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


if __name__ == "__main__":
    main()
