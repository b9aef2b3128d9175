"""The eucarc file that comes with a cloud's credentials: read as text, never run as the shell script it is.

The place of the file itself comes, from the oldest generation to the newest and last in OpenStack's way, as

    EUCA_KEY_DIR=$(dirname $(readlink -f ${BASH_SOURCE}))
    EUCA_KEY_DIR=$(cd $(dirname ${BASH_SOURCE:-$0}); pwd -P)
    NOVARC=$(readlink -f "${BASH_SOURCE:-${0}}" 2>/dev/null)

and in as many ways more as people have thought of; `shell` says which of them are understood.
What only a shell could tell is no setting, and why is said where it lacks.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from uecwatchd.clouds.credentials.shell import read_script
from uecwatchd.clouds.credentials.shell_commands import the_one_file
from uecwatchd.clouds.credentials.shell_words import Scope, UnknownVariable
from uecwatchd.clouds.credentials.source import PATHS, Remark, Source
from uecwatchd.errors import Halted
from uecwatchd.system.file_errors import cannot_read
from uecwatchd.system.small_files import read_small_text

# Where the eucarc of any generation keeps what a setting is about; the first that is set counts.
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "ec2_url": ("EC2_URL",),
    "s3_url": ("S3_URL",),
    "access_key": ("EC2_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"),
    "secret_key": ("EC2_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"),
    "session_token": ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    "account": ("EC2_ACCOUNT_NUMBER", "EC2_USER_ID"),
    "user_cert": ("EC2_CERT",),
    "user_key": ("EC2_PRIVATE_KEY",),
    "cloud_cert": ("EUCALYPTUS_CERT",),
}


def eucarc_source(path: Path, *, cloud: str, home: Path) -> Source:
    """Return the settings that an eucarc gives. Raises `Halted`, or `NotPermitted` if it may not be read.

    `home` is the home directory of the service's user.
    """
    path = path.resolve()  # the files named in it are beside it, not beside a link to it
    text = _text(path, cloud)
    script = read_script(text, path=path, home=home)
    found = {
        setting: next(filter(None, map(script.variables.get, names)), None)
        for setting, names in VARIABLES.items()
    }
    values = {setting: value for setting, value in found.items() if value}
    reasons = {
        setting: why
        for setting in VARIABLES
        if (why := _reason_unknown(script, text, setting, found[setting]))
    }
    skipped = [f"{one.why} (line {_line(text, one)})" for one in script.skipped]
    values |= {key: _globbed(values[key], path.parent)[0] for key in PATHS & values.keys()}
    values = {setting: value for setting, value in values.items() if value}
    if not values and not reasons and not skipped:
        raise Halted(
            f"{path} (eucarc of cloud {cloud})",
            "it sets none of the variables that an eucarc sets, such as EC2_URL and EC2_ACCESS_KEY",
            "Name the file eucarc itself; if credentials came as an archive, unpack that first.",
        )
    placed = {key: str(path.parent / value) if key in PATHS else value for key, value in values.items()}
    spelled = {setting: names[0] for setting, names in VARIABLES.items()}
    remedies = {setting: f"Add `export {name}=…` to {path}" for setting, name in spelled.items()}
    lines = {setting: _line_of(names, text) for setting, names in VARIABLES.items()}
    remarks = tuple(Remark(f"{path}: {why}", f"{remedies[setting]}.") for setting, why in reasons.items())
    remarks += tuple(
        Remark(f"{path}: {why}", f"Add to {path} the lines that the cloud needs of it.") for why in skipped
    )
    if skipped:
        for setting in spelled.keys() - values.keys() - reasons.keys():
            reasons[setting] = f"{spelled[setting]} is not known, since {skipped[0]}"
    return Source(str(path), placed, spelled, (path,), remarks, remedies, reasons, lines)


def _reason_unknown(script: Scope, text: str, setting: str, value: str | None) -> str | None:
    """Say why a setting that stands there is unknown, with its line."""
    if value:
        variable = next(name for name in VARIABLES[setting] if script.variables.get(name))
        why = _globbed(value, script.path.parent)[1] if setting in PATHS else ""
        return f"{variable} is not known: {why}" if why else None
    name = next((name for name in VARIABLES[setting] if name in script.unknown), None)
    if name is None:
        return None
    reason = script.unknown[name]
    return f"{name} (line {_line(text, reason)}) is not known, since {reason.why}"


def _line(text: str, reason: UnknownVariable) -> int:
    return text.count("\n", 0, reason.at) + 1


def _globbed(value: str, folder: Path) -> tuple[str, str]:
    """Return the path that a value means, or None and the reason.

    A value may be a pattern, which a shell fills in: exactly one file must match.
    """
    path = folder / value
    if not {"*", "?"} & set(value) or os.path.exists(path):  # noqa: PTH110 (that of a Path raises)
        return value, ""
    found, why = the_one_file(str(path), folder=folder)
    return found or "", why


def _line_of(names: tuple[str, ...], text: str) -> int:
    """Return the last line that seems to assign one of the names, for people; 0 if none does."""
    assigned = re.compile(rf"\b(?:{'|'.join(names)})=")
    return max((n for n, line in enumerate(text.splitlines(), 1) if assigned.search(line)), default=0)


def _text(path: Path, cloud: str) -> str:
    what = f"{path} (eucarc of cloud {cloud})"
    try:
        return read_small_text(path, encoding="utf-8-sig", errors="replace")
    except PermissionError as error:
        raise cannot_read(path, what=what) from error
    except OSError as error:
        hint = f"Correct eucarc under [cloud.{cloud}], or put the file there."
        raise Halted(what, f"cannot read it: {error.strerror}", hint) from error
