"""The documentation and the program: what one has, the other has too."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.overviews import full_overview
from uecwatchd.cli.verbs import VERBS, build_parser
from uecwatchd.config.records import SECTIONS, keys_of
from uecwatchd.errors import UecError
from uecwatchd.install.recipe import RECIPE_KEYS
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.output_files import OUTPUT_SUFFIXES
from uecwatchd.outputs.journal import MESSAGE_IDS
from uecwatchd.outputs.metrics import write_metrics

ROOT = Path(__file__).parents[1]
ETC = ROOT / "etc"
SHELLS = ("bash", "zsh", "fish")
# Calls of S3 whose right has another name, or that take two; those of EC2 are all called like their right.
RIGHTS_OF_S3 = {
    "list_buckets": {"ListAllMyBuckets"},
    "list_objects": {"ListBucket"},
    "head_bucket": {"ListBucket"},
    "put_object": {"PutObject", "PutObjectAcl"},
}
# It is asked at a path that no cloud has, where nobody has rights.
WITHOUT_RIGHT = {"ec2:DescribeRegions"}
# The calls of the parameter store, whose client is no part of that of a cloud.
RIGHTS_OF_PARAMETERS = {"ssm:GetParameter", "ssm:PutParameter"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doc")
    subprocess.run([sys.executable, ETC / "doc" / "build.py", folder], check=True)
    return folder


@cache
def page(path: Path) -> str:
    """Return a manual page as it is read: without the commands of its format."""
    text = path.read_text()
    text = re.sub(r"\\f[A-Z]|\\&", "", text)
    return text.replace("\\-", "-").replace("\\_", "_")


def options() -> Iterator[tuple[str, str]]:
    parser = build_parser()
    verbs = next(action for action in parser._actions if action.dest == "==SUPPRESS==")
    for verb, one in verbs.choices.items():
        for action in one._actions:
            yield from ((verb, name) for name in action.option_strings)


def exit_codes() -> set[int]:
    def below(error: type[UecError]) -> Iterator[int]:
        yield error.exit_code
        for each in error.__subclasses__():
            yield from below(each)

    return {0, 64, *(code for each in UecError.__subclasses__() for code in below(each))}


def test_each_option_of_each_verb_is_in_the_manual_and_in_the_completions(made: Path) -> None:
    manual = page(made / "uecwatchd.8")
    assert [name for _, name in options() if name not in manual] == []
    for shell in SHELLS:
        text = (made / f"uecwatchd.{shell}").read_text()
        assert [name for _, name in options() if name.lstrip("-") not in text] == [], shell
        assert [verb.name for verb in VERBS if verb.name not in text] == [], shell


def test_each_setting_is_in_its_manual(made: Path) -> None:
    manual = page(made / "uecwatchd.toml.5")
    missing = [key for section in SECTIONS for key in keys_of(section) if f"{key} = " not in manual]
    assert missing == []
    assert [section for section in SECTIONS if section.upper() not in manual] == []


def test_each_key_of_a_recipe_is_in_the_manual_and_in_the_readme(made: Path) -> None:
    for text in (page(made / "uecwatchd-sidecar.5"), (ROOT / "README.md").read_text()):
        assert [key for key in RECIPE_KEYS if f"{key} = " not in text] == []


def test_each_key_of_a_sidecar_is_in_its_manual_and_in_the_readme(made: Path) -> None:
    keys = [key for key in Sidecar.__dataclass_fields__ if key not in ("given", "raw")]
    for text in (page(made / "uecwatchd-sidecar.5"), (ROOT / "README.md").read_text()):
        assert [key for key in keys if f"{key} = " not in text] == []


def test_each_exit_code_is_in_the_manual_and_in_the_readme(made: Path) -> None:
    manual, readme = page(made / "uecwatchd.8"), (ROOT / "README.md").read_text()
    sentence = readme[readme.index("Exit codes follow") :].split("\n")[0]
    for code in exit_codes():
        assert re.search(rf"^{code}$", manual, re.MULTILINE), code
        assert re.search(rf"\b{code}\b", sentence), code


def test_each_result_file_and_field_of_the_journal_is_in_the_manual(made: Path) -> None:
    manual = page(made / "uecwatchd.8")
    assert [suffix for suffix in OUTPUT_SUFFIXES if f"karmic{suffix}" not in manual] == []
    catalog = (ROOT / "systemd" / "uecwatchd.catalog").read_text()
    assert [field for field in set(re.findall(r"@(UEC_\w+)@", catalog)) if field not in manual] == []


def test_each_message_of_the_journal_has_an_entry_that_says_what_to_do() -> None:
    catalog = (ROOT / "systemd" / "uecwatchd.catalog").read_text()
    entries = {entry.split("\n")[0].strip(): entry for entry in catalog.split("\n-- ")[1:]}
    assert entries.keys() == set(MESSAGE_IDS.values())
    for entry in entries.values():
        head, what, *then = entry.strip().split("\n\n")
        assert "Subject: " in head
        assert what
        assert then, f"no word about what to do: {entry}"


def test_each_metric_is_in_the_manual_and_in_the_readme(made: Path) -> None:
    names = set(re.findall(r"^# TYPE (\w+)", write_metrics(full_overview()).decode(), re.MULTILINE))
    assert "uecwatchd_uploaded_bytes_total" in names
    for text in (page(made / "uecwatchd.8"), (ROOT / "README.md").read_text()):
        assert {name for name in names if name not in text} == set()


@pytest.mark.parametrize("name", ["uecwatchd.8", "uecwatchd.toml.5", "uecwatchd-sidecar.5"])
def test_no_manual_page_has_a_mark_of_its_source_left(made: Path, name: str) -> None:
    text = page(made / name)
    assert text.startswith(".")
    for mark in ("**", "@VERBS@", "```", "](", "%(default)"):
        assert mark not in text, mark


def completed(script: str, typed: str, folder: Path) -> list[str]:
    """Return what bash offers after these words."""
    words = f"COMP_WORDS=(uecwatchd {typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))"
    call = (
        "$(complete -p uecwatchd | sed 's/.*-F \\([^ ]*\\).*/\\1/') uecwatchd \"${COMP_WORDS[COMP_CWORD]}\""
    )
    whole = f"{script}\n{words}\n{call}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    ended = subprocess.run(["bash", "-c", whole], capture_output=True, text=True, check=True, cwd=folder)
    return ended.stdout.split("\n")[:-1]


def test_the_completion_offers_verbs(made: Path, tmp_path: Path) -> None:
    assert completed((made / "uecwatchd.bash").read_text(), "sta", tmp_path) == ["status"]


def test_the_completion_offers_names_of_sets_and_runs_none_of_them(made: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    names = (
        "karmic",
        "-x",
        "$(touch pwned)",
        "`touch pwned`",
        ";touch pwned",
        "a b",
        "*",
        "kar'mic",
        "lucid",
    )
    for name in names:
        (spool / f"{name}.uec.json").touch()
    script = (made / "uecwatchd.bash").read_text().replace("/var/spool/uecwatchd", str(spool))
    assert completed(script, "status ''", tmp_path) == ["karmic", "lucid"]
    assert completed(script, "status kar", tmp_path) == ["karmic"]
    assert not (tmp_path / "pwned").exists()


def test_fish_offers_files_only_where_one_is_wanted(made: Path) -> None:
    lines = (made / "uecwatchd.fish").read_text().splitlines()
    for verb, is_file in (("status", False), ("hold", False), ("inspect", True), ("demo", True)):
        line = f"complete -c uecwatchd -n '__fish_seen_subcommand_from {verb}' -F"
        assert (line in lines) == is_file, verb
    (eucarc,) = (line for line in lines if " -l eucarc " in line)
    assert " -l eucarc -r -F " in eucarc


def test_fish_offers_the_values_of_an_option_and_the_options_before_a_verb(made: Path) -> None:
    text = (made / "uecwatchd.fish").read_text()
    assert " -l type -x -a 'machine kernel ramdisk' " in text
    assert "-n __fish_use_subcommand -l version " in text
    assert "-n __fish_use_subcommand -l config -r -F " in text


def test_the_least_account_has_the_rights_for_each_call_and_no_others() -> None:
    text = (ETC / "doc" / "administration.md").read_text()
    blocks = [json.loads(one) for one in re.findall(r"```json\n(.+?)```", text, re.DOTALL)]
    statements = [one for block in blocks for one in block.get("Statement", [block])]
    granted = {right for one in statements for right in listed(one["Action"])}
    assert granted == (set(rights_of_calls()) - WITHOUT_RIGHT) | RIGHTS_OF_PARAMETERS


def listed(words: str | list[str]) -> list[str]:
    return [words] if isinstance(words, str) else words


def rights_of_calls() -> Iterator[str]:
    """Yield the rights for the calls of a cloud that are in the program."""
    wings = ("clouds", "delivery", "service", "cli")
    for module in (path for wing in wings for path in (ROOT / "uecwatchd" / wing).rglob("*.py")):
        for half, call in re.findall(r"\bcloud\.(s3|ec2)\.([a-z_]+)\b", module.read_text()):
            name = "".join(map(str.capitalize, call.split("_")))
            rights = RIGHTS_OF_S3.get(call, {name}) if half == "s3" else {name}
            yield from (f"{half}:{right}" for right in rights if call != "meta")


def test_the_page_for_administrators_has_each_way_to_remove_it() -> None:
    text = (ETC / "doc" / "administration.md").read_text()
    removal = text[text.index("## Removal") :]
    commands = ("setup --remove", "apt-get remove", "apt-get purge", "setup --remove --purge")
    assert [command for command in commands if command not in removal] == []
    postrm = (ETC / "packaging" / "debian" / "postrm").read_text()
    (deleted,) = re.findall(r"rm -rf (.+)", postrm)
    assert [folder for folder in deleted.split() if folder not in removal] == []
