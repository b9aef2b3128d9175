"""Untrusted text, made safe to print, to log and to use in a command."""

import json
import os
import re
import shlex

# Enough of a wrong value to find it again.
VALUE_SHOWN_CHARS = 80
# Except line ends, which JSON has between its words and never in them.
_NOT_SHOWN = re.compile(r"[^\n -~]")
_OCTAL = re.compile(r"\\([0-7]{3})")


def printable(text: str) -> str:
    """Escape what could forge a line of a log or move a terminal's cursor.

    Newlines, escape sequences, reversed writing directions and bytes of file names that are not UTF-8
    come out as `\\n`, `\\x1b`, `\\u202e`, `\\udcff`.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def shorten(text: str) -> str:
    """Return a value of a document, printable and no longer than a sentence needs."""
    return printable(text if len(text) <= VALUE_SHOWN_CHARS else f"{text[:VALUE_SHOWN_CHARS]}…")


def quoted(text: str) -> str:
    """Return a value of a document, shortened, in quotes."""
    return f'"{shorten(text)}"'


def spelled(name: str) -> str:
    """Return a file name from the kernel as text: bytes that are not UTF-8 become `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def json_text(value: object, *, ascii_only: bool = False) -> str:
    """Return JSON over several lines, without characters that move the cursor of a terminal."""
    text = json.dumps(value, indent=2, ensure_ascii=ascii_only)
    return _NOT_SHOWN.sub(lambda found: found[0] if found[0].isprintable() else _in_json(found[0]), text)


def _in_json(char: str) -> str:
    return json.dumps(char)[1:-1] if char > "\x7f" else f"\\u{ord(char):04x}"


def unescape_octal(field: str) -> str:
    """Return a field of a mount table or an fstab, where white space and backslashes are escaped.

    Each is a backslash and three octal digits there: fstab(5), proc_pid_mountinfo(5).
    """
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), field)


def shell_word(text: str) -> str:
    """Return the text as one word of a shell command that can be copied and pasted."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = (_as_in_shell(byte) for byte in os.fsencode(text))
    return f"$'{''.join(escaped)}'"


def file_word(path: str) -> str:
    """Return a file name as one word of a command, never as an option or another host."""
    is_mistaken = path.startswith("-") or ":" in path.partition("/")[0]
    return shell_word(f"./{path}" if is_mistaken else path)


def format_size(size: int) -> str:
    """Return a number of bytes for people, such as "1.5 GiB"."""
    units = {"EiB": 1 << 60, "TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}
    return next(
        (f"{size / unit:.4g} {word}" for word, unit in units.items() if size >= unit), f"{size} bytes"
    )


def _as_in_shell(byte: int) -> str:
    plain = byte < 0x80 and chr(byte).isprintable() and chr(byte) not in "'\\"
    return chr(byte) if plain else f"\\x{byte:02x}"
