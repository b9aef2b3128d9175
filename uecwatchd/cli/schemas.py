"""The JSON Schema files of the package: the form of what `--json` prints."""

from importlib.resources import files

# By verb. `once` prints the rows of `status`, and `history --versions` those of `versions`.
SCHEMAS = {
    "status": ("uecwatchd.cli.status", "status.schema.json"),
    "once": ("uecwatchd.cli.status", "status.schema.json"),
    "log": ("uecwatchd.cli.history", "log.schema.json"),
    "history": ("uecwatchd.cli.history", "history.schema.json"),
    "versions": ("uecwatchd.cli.history", "versions.schema.json"),
    **{
        verb: ("uecwatchd.cli", f"{verb}.schema.json")
        for verb in ("boot", "withdraw", "rollback", "prune", "orphans", "fleet")
    },
}


def read_schema(verb: str) -> str:
    """Return the schema of what a verb prints."""
    package, name = SCHEMAS[verb]
    return files(package).joinpath(name).read_text(encoding="utf-8")
