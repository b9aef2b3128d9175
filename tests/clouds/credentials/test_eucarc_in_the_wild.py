"""Credential files as people have written them: what of them is understood, and what is said of the rest."""

import os
import re
import stat
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uecwatchd.clouds.credentials.account import access_keys, find_sources, user_certificate
from uecwatchd.clouds.credentials.eucarc import eucarc_source
from uecwatchd.clouds.credentials.shell import read_script
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import Halted

HOME = Path("/var/lib/uecwatchd")
PATH = Path("/home/alice/.euca/eucarc")


def read(text: str) -> Mapping[str, str]:
    return read_script(text, path=PATH, home=HOME).variables


def reasons(tmp_path: Path, text: str) -> Mapping[str, str]:
    file = tmp_path / "eucarc"
    file.write_text(text)
    return eucarc_source(file, cloud="default", home=HOME).reasons


# --- the file's own place ---------------------------------------------------------------------------------

OWN_FOLDER = [
    '"${BASH_SOURCE[0]%/*}"',
    "${BASH_SOURCE%/*}",
    '"${0%/*}"',
    "$(dirname $(readlink -f ${BASH_SOURCE}))",
    '$(cd "$(dirname "$0")" && pwd)',
    '"$( cd "$( dirname "${BASH_SOURCE[0]}" )" >/dev/null 2>&1 && pwd )"',
    '$(cd -P -- "$(dirname -- "$0")" && pwd -P)',
    "$(unset CDPATH; cd `dirname $0`; pwd)",
    '$(cd "${BASH_SOURCE[0]%/*}" && pwd)',
    "$(dirname ${(%):-%x})",
    '$(cd "$(dirname "${BASH_SOURCE[0]:-${(%):-%x}}")" && pwd)',
    "${${(%):-%x}:A:h}",
    "${0:A:h}",
    "${0:a:h}",
    '"$(realpath "$(dirname "${BASH_SOURCE:-$0}")")"',
    '$(dirname "$(realpath "$0")")',
    "$(builtin cd $(dirname $BASH_SOURCE); pwd)",
    "$(whoami >/dev/null || dirname $0)",
]


@pytest.mark.parametrize("form", OWN_FOLDER)
def test_the_folder_is_found_however_a_script_asks_for_it(form: str) -> None:
    assert read(f"D={form}\nexport EC2_CERT=$D/cert.pem\n")["EC2_CERT"] == "/home/alice/.euca/cert.pem"


@pytest.mark.parametrize(
    "form",
    [
        r"`dirname \`readlink -f $0\``",
        r'"`dirname \`readlink -f \$BASH_SOURCE\``"',
        r"`cd \`dirname $0\` && pwd`",
        r"`dirname \`readlink -f \\\`realpath $0\\\`\``",
        r"$(dirname `readlink -f $0`)",
    ],
)
def test_commands_within_commands_end_where_they_do_for_a_shell(form: str) -> None:
    said = read(f"D={form}\nexport EC2_CERT=$D/cert.pem\nexport EC2_URL=http://here/\n")
    assert said == {
        "D": "/home/alice/.euca",
        "EC2_CERT": "/home/alice/.euca/cert.pem",
        "EC2_URL": "http://here/",
    }


@pytest.mark.parametrize(
    ("form", "folder"),
    [
        ("$(dirname $(dirname $0))", "/home/alice"),
        ("$(cd $(dirname $0)/..; pwd)", "/home/alice"),
        ("$(cd $(dirname $0)/keys && pwd)", "/home/alice/.euca/keys"),
        ("$(basename $0)", "eucarc"),
        ("${0##*/}", "eucarc"),
        ("${BASH_SOURCE%.euca/eucarc}x", "/home/alice/x"),
    ],
)
def test_another_folder_is_never_used_instead(form: str, folder: str) -> None:
    assert read(f"D={form}")["D"] == folder


# --- commands ---------------------------------------------------------------------------------------------

GLOBS = [
    "`ls $EUCA_KEY_DIR/*-pk.pem`",
    "$(ls ${EUCA_KEY_DIR}/*-pk.pem)",
    '"$(ls "$EUCA_KEY_DIR"/euca2-*-pk.pem 2>/dev/null | head -1)"',
    "$(ls -1t $EUCA_KEY_DIR/*pk.pem | head -n 1)",
    "$(echo $EUCA_KEY_DIR/*-pk.pem)",
    "$(find $EUCA_KEY_DIR -maxdepth 1 -name '*-pk.pem')",
    "$(cd $EUCA_KEY_DIR && ls $PWD/*-pk.pem || ls $EUCA_KEY_DIR/*-pk.pem)",
    "$EUCA_KEY_DIR/*-pk.pem",
    "${EUCA_KEY_DIR}/euca2-*-?k.pem",
]


def key_folder(tmp_path: Path, *names: str) -> Path:
    for name in names or ("euca2-admin-1a2b-pk.pem", "euca2-admin-1a2b-cert.pem", "cloud-cert.pem"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("form", GLOBS)
def test_a_pattern_is_filled_in_from_the_files_own_folder(tmp_path: Path, form: str) -> None:
    file = key_folder(tmp_path) / "eucarc"
    file.write_text(f"EUCA_KEY_DIR=$(dirname $0)\nexport EC2_PRIVATE_KEY={form}\n")
    found = eucarc_source(file, cloud="default", home=HOME)
    assert found.values["user_key"] == str(tmp_path / "euca2-admin-1a2b-pk.pem")
    assert not found.reasons


@pytest.mark.parametrize(
    ("form", "names", "why"),
    [
        ("$(ls $D/*-pk.pem)", ("a-pk.pem", "b-pk.pem"), "a-pk.pem and b-pk.pem fit *-pk.pem"),
        ("$(ls $D/*-pk.pem | head -1)", ("a-pk.pem", "b-pk.pem"), "a-pk.pem and b-pk.pem fit *-pk.pem"),
        ("$D/*-pk.pem", ("a-pk.pem", "b-pk.pem"), "a-pk.pem and b-pk.pem fit *-pk.pem"),
        ("$(ls $D/*-pk.pem)", ("x",), "no file fits *-pk.pem"),
        ("$(ls /etc/ssl/private/*.pem)", (), "*.pem is looked for in another folder"),
        ("$(ls $D/../*/pk.pem)", (), "pk.pem is looked for in another folder"),
        ("$(ls $HOME/.euca/*-pk.pem)", (), "*-pk.pem is looked for in another folder"),
    ],
)
def test_a_pattern_that_does_not_match_exactly_one_file_is_reported(
    tmp_path: Path, form: str, names: tuple[str, ...], why: str
) -> None:
    result = reasons(key_folder(tmp_path, *names), f"D=$(dirname $0)\nexport EC2_PRIVATE_KEY={form}\n")
    assert why in result["user_key"]


@pytest.mark.parametrize(
    ("form", "command"),
    [
        ("$(cat $HOME/secret)", "cat"),
        ("`pass show cloud/secret`", "pass"),
        ('"x$(gpg -d secret.gpg)"', "gpg"),
        ("$(echo abc | base64 -d)", "base64"),
        ("$(whoami; dirname $0)", "whoami"),
        ("$(python -c 'print(1)' && dirname $0)", "python"),
    ],
)
def test_a_command_that_is_not_run_is_named_with_its_line(tmp_path: Path, form: str, command: str) -> None:
    (tmp_path / "eucarc").write_text(f"# mine\nexport EC2_ACCESS_KEY=a\nexport EC2_SECRET_KEY={form}\n")
    with pytest.raises(Halted) as caught:
        access_keys(find_sources(CloudSettings(name="default", eucarc=tmp_path / "eucarc")))
    assert caught.value.why == (
        f"secret_key is not set and of {tmp_path}/eucarc, EC2_SECRET_KEY (line 3) is not known, since "
        f"`{command}` is a command, and none is run"
    )


def test_a_value_that_depends_on_a_command_is_reported_with_it(tmp_path: Path) -> None:
    (tmp_path / "eucarc").write_text("D=$(hostname)\nexport EC2_ACCESS_KEY=a\nexport EC2_CERT=$D/cert.pem\n")
    with pytest.raises(Halted) as caught:
        user_certificate(find_sources(CloudSettings(name="default", eucarc=tmp_path / "eucarc")))
    why = "since $D is not known, since `hostname` is a command, and none is run"
    assert caught.value.why.endswith(f"EC2_CERT (line 3) is not known, {why}")


def test_a_command_that_is_not_run_clears_an_earlier_value() -> None:
    assert "A" not in read("A=1\nA=$(hostname)")
    assert read("A=1\nA=$(hostname)\nA=2")["A"] == "2"


def test_nothing_is_ever_run(tmp_path: Path) -> None:
    trap = tmp_path / "ls"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    trap.chmod(stat.S_IRWXU)
    text = f"A=$({trap})\nB=`touch {tmp_path}/was-run`\n{trap}\nC=$(ls $(touch {tmp_path}/was-run)/*)\n"
    read_script(text, path=tmp_path / "eucarc", home=HOME)
    assert not (tmp_path / "was-run").exists()


# --- here-documents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "cat <<EOF\nA=EVIL\nEOF\n",
        "cat <<'EOF'\nA=EVIL \"\n`'\nEOF\n",
        'cat <<"E F"\nA=EVIL\nE F\n',
        "cat <<-EOF\n\tA=EVIL\n\tEOF\n",
        "cat <<\\EOF\nA=EVIL\nEOF\n",
        "cat << EOF; echo\nA=EVIL\nEOF\n",
        "cat <<EOF # why\nA=EVIL\nEOF\n",
        "cat <<ONE <<TWO\nA=EVIL\nONE\nA=EVIL\nTWO\n",
        "cat <<EOF | sed s/a/b/\n\n\nA=EVIL\n\nEOF\n",
        "usage() {\ncat <<EOF\nexport A=EVIL\nEOF\n}\n",
        "function usage {\n  cat >&2 <<-EOF\n\texport A=EVIL\n\tEOF\n}\n",
        "if [ $# -gt 0 ]; then cat <<EOF\nA=EVIL\nEOF\nfi\n",
    ],
)
def test_a_here_document_sets_nothing(text: str) -> None:
    assert read(f"A=1\n{text}B=2\n") == {"A": "1", "B": "2"}


def test_an_unfinished_here_document_extends_to_the_end() -> None:
    assert read("A=1\ncat <<EOF\nA=EVIL\n") == {"A": "1"}


def test_a_here_string_is_no_here_document() -> None:
    assert read('cat <<< "x"\nA=1\n') == {"A": "1"}


# --- branches ---------------------------------------------------------------------------------------------

DISAGREEING = [
    'if [ "$1" = a ]; then\n EC2_URL=http://a\nelif [ "$1" = b ]; then\n EC2_URL=http://b\nfi\n',
    "if true; then EC2_URL=http://a; else EC2_URL=http://b; fi\n",
    "case $1 in\n a) export EC2_URL=http://a;;\n (b|c) export EC2_URL=http://b ;;\nesac\n",
    "case $1 in a) EC2_URL=http://a;; *) EC2_URL=http://b;; esac\n",
    'EC2_URL=http://a\nif [ -n "$TEST" ]; then\n EC2_URL=http://b\nfi\n',
    'EC2_URL=http://a\n[ -n "$TEST" ] && EC2_URL=http://b\n',
    "EC2_URL=http://a\ntesting() {\n export EC2_URL=http://b\n}\n",
    "EC2_URL=http://a\nfor u in 1 2; do EC2_URL=http://b; done\n",
    "if a; then EC2_URL=http://a; elif b; then EC2_URL=http://b; else EC2_URL=http://b; fi\n",
    'if a; then H=a; else H=b; fi\nEC2_URL="http://$H"\n',
    "EC2_URL=http://a\ntest -f /x || EC2_URL=http://b\n",
    "EC2_URL=http://a\ntest -f /x ||  # why\n  EC2_URL=http://b\n",
    "EC2_URL=http://a\ntest -f /x || { echo; EC2_URL=http://b; }\n",
    "EC2_URL=http://a\n{ test -f /x; } || EC2_URL=http://b\n",
    "EC2_URL=http://a\nif b; then c; fi && EC2_URL=http://b\n",
    "EC2_URL=http://a\ntest -f /x && B=1 && EC2_URL=http://b\n",
    'EC2_URL=http://a\n[ "$EC2_URL" = http://c ] || EC2_URL=http://b\n',
    'EC2_URL=http://a\n! [ -n "$EC2_URL" ] || EC2_URL=http://b\n',
    "[[ $x = y ]] && EC2_URL=http://a || EC2_URL=http://b\n",
    "EC2_URL=http://a\nif x; then unset EC2_URL; fi\n",
    "EC2_URL=http://a\ntest -f /x && unset -v EC2_URL\n",
    "EC2_URL=http://a\ntest -f /x && EC2_URL+=/b\n",
    "EC2_URL=http://a\nif x; then export B=1 EC2_URL=http://b; fi\n",
]


@pytest.mark.parametrize("text", DISAGREEING)
def test_different_values_in_branches_are_reported_and_not_used(tmp_path: Path, text: str) -> None:
    result = reasons(tmp_path, text + "EC2_ACCESS_KEY=a\n")
    assert re.search("another branch (un)?sets", result["ec2_url"])
    assert "(line " in result["ec2_url"]


@pytest.mark.parametrize("text", DISAGREEING)
def test_the_configuration_decides_between_different_branches(tmp_path: Path, text: str) -> None:
    (tmp_path / "eucarc").write_text(text)
    result = find_sources(CloudSettings(name="default", eucarc=tmp_path / "eucarc", ec2_url="http://c:1/"))
    assert result.value("ec2_url") == "http://c:1/"


@pytest.mark.parametrize(
    "text",
    [
        'if [ -z "$A" ]; then A=1; fi',
        "if zsh; then A=$(hostname); else A=1; fi",
        "if zsh; then A=1; else A=$(hostname); fi",
        "if a; then A=1; else A=1; fi",
        "if a; then A=0; else A=2; fi\nA=1",
        'A=1\n[ -n "$A" ] || A=2',
        "B=2 && A=1",
        "{ A=1; }",
        "case $x in a) A=1;; esac",
        "if a; then :; fi\nA=0\nA=1",
        "A=1\n[[ -n ${A:-} ]] || A=2",
        'A=1\n[ ! -z "$A" ] || { A=2; }',
        'A=\ntest "$A" || A=1',
        '[ -n "$A" ] || A=1',
        "A=1 || A=2",
        "A=1\nB=2 || A=3",
        "A=1\nif x; then unset -f A; fi",
        "A=1\ncmd || exit 1\nB=2",
    ],
)
def test_a_value_that_all_branches_share_is_used(text: str) -> None:
    assert read(text)["A"] == "1"


@pytest.mark.parametrize(
    "text",
    [
        'A=1\nif [ -n "$TEST" ]; then A=$(hostname); fi',
        'A=1\n[ -n "$TEST" ] && A=$(hostname)',
        "A=1\ntesting() { A=`hostname`; }",
        "A=1\ncase $x in a) A=$HOSTNAME;; esac",
        "A=$(hostname)\nif x; then A=1; fi",
        'A=$(hostname)\n[ -n "$A" ] || A=1',
        "export A=$(hostname) || A=1",
    ],
)
def test_a_branch_with_another_value_makes_a_variable_unknown(text: str) -> None:
    assert "A" not in read(text)


def test_check_reports_unknown_variables_of_an_eucarc(tmp_path: Path) -> None:
    (tmp_path / "eucarc").write_text("export EC2_ACCESS_KEY=a\nexport EUCALYPTUS_CERT=$(find-cert)\n")
    (remark,) = eucarc_source(tmp_path / "eucarc", cloud="default", home=HOME).remarks
    why = "since `find-cert` is a command, and none is run"
    assert remark.what == f"{tmp_path}/eucarc: EUCALYPTUS_CERT (line 2) is not known, {why}"
    assert remark.hint == f"Add `export EUCALYPTUS_CERT=…` to {tmp_path}/eucarc."


# --- what a shell would set otherwise -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=http://h\nA+=:8773/x", "http://h:8773/x"),
        ("export A+=x", "x"),
        ("A=$'abc'", "abc"),
        ('A=$"abc"d', "abcd"),
        ("A=\"$'abc'\"", "$'abc'"),
        ("A=1\nA=2 euca-describe-images", "1"),
        ("A=1\nB=$A A=2 cmd $A", "1"),
        ("A=1\nA=2 B=3 >/dev/null cmd", "1"),
        ("A=1 >/dev/null", "1"),
        (": ${A:=1}", "1"),
        (': "${A:=1}" "${A:=2}"', "1"),
        ("export B=${A=1}", "1"),
        ("A=\n: ${A=2}\nA=${A}1", "1"),
        ("readonly A=1", "1"),
        ("declare -x A=1", "1"),
        ("declare A=1", "1"),
        ("typeset -rx B=2 A=1", "1"),
        ("A=1\n(A=2; A=3)", "1"),
        ("A=1\n( cd /\nA=2 )", "1"),
        ("A=1\nB=$(: ${A:=2})", "1"),
        ("A=$(hostname)\nunset A\nA=${A:-1}", "1"),
    ],
)
def test_each_way_to_set_a_variable_sets_it_as_in_bash(tmp_path: Path, text: str, value: str) -> None:
    file = tmp_path / "eucarc"
    file.write_text(text + "\n")
    script = f'. {file} 2>/dev/null; printf %s "$A"'
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert (read(text).get("A"), result) == (value, value)


@pytest.mark.parametrize(
    "text",
    [
        "A=1 cmd",
        "A=1 . ./other",
        "A=1\nA+=$(hostname)",
        "A=$(hostname)\nA+=1",
        "A=$'a\\tb'",
        "A=(1)",
        "A=1\nread -r A",
        "declare -i A=1+1",
        "B=$(hostname)\nA=${B:-1}",
        "A=$(hostname)\n: ${A:=1}",
        "(A=1; B=2)",
        "B=$(: ${A:=1})",
    ],
)
def test_a_temporary_or_changed_variable_is_unknown(text: str) -> None:
    assert "A" not in read(text)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (". ./openrc\n", "`. ./openrc` is a command, and none is run (line 1)"),
        ("# mine\nsource openrc admin\n", "`source openrc` is a command, and none is run (line 2)"),
        ("export EC2_ACCESS_KEY=a\n[ -f x ] && . x\n", "`. x` is a command, and none is run (line 2)"),
        ('eval "$(secret env)"\n', "`eval` is a command, and none is run (line 1)"),
    ],
)
def test_a_command_that_may_set_a_missing_variable_is_named(tmp_path: Path, text: str, command: str) -> None:
    (tmp_path / "eucarc").write_text(text)
    with pytest.raises(Halted) as caught:
        access_keys(find_sources(CloudSettings(name="default", eucarc=tmp_path / "eucarc")))
    assert caught.value.why.endswith(f"is not known, since {command}")
    (remark,) = eucarc_source(tmp_path / "eucarc", cloud="default", home=HOME).remarks
    assert remark.what == f"{tmp_path}/eucarc: {command}"


@pytest.mark.parametrize("form", [*GLOBS[:5], "$EUCA_KEY_DIR/*-pk.pem", "${EUCA_KEY_DIR}/euca2-*-?k.pem"])
def test_an_unreadable_folder_is_reported_as_the_reason(tmp_path: Path, as_nobody: None, form: str) -> None:
    closed = tmp_path / "k"
    os.seteuid(0)
    closed.mkdir()
    (closed / "eucarc").write_text(f"EUCA_KEY_DIR=$(dirname $0)\nexport EC2_PRIVATE_KEY={form}\n")
    closed.chmod(0o711)
    os.seteuid(65534)
    found = eucarc_source(closed / "eucarc", cloud="default", home=HOME)
    assert "user_key" not in found.values
    assert f"{closed} cannot be listed (Permission denied)" in found.reasons["user_key"]


def test_a_variable_has_a_maximum_length() -> None:
    assert read("A=0123456789\nB=1\n" + "A=$A$A\n" * 60) == {"B": "1"}


# --- any text ---------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *(
            "EC2_URL=",
            "export ",
            "http://a",
            "$(",
            ")",
            "`",
            "${",
            "}",
            '"',
            "'",
            "\n",
            ";",
            "&&",
            "||",
            "|",
            " ",
        ),
        *(
            "<<EOF\n",
            "EOF\n",
            "if ",
            "then ",
            "else ",
            "fi\n",
            "case x in ",
            "esac",
            ";;",
            "f() {\n",
            "\n}\n",
            "\\",
        ),
        *(
            "ls ",
            "dirname ",
            "cd ",
            "pwd",
            "$0",
            "${BASH_SOURCE[0]%/*}",
            "${(%):-%x}",
            ":A:h}",
            "*",
            "?",
            "[",
            "#",
        ),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.characters(), max_size=60).map("".join))
def test_any_text_gives_settings_or_a_sentence(text: str) -> None:
    found = read_script(f"A=1\n{text}", path=PATH, home=HOME).variables
    assert all(isinstance(value, str) for value in found.values())


@settings(max_examples=50, deadline=None)
@given(text=st.lists(PIECES, max_size=40).map("".join))
def test_any_file_gives_settings_or_halts(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("any") / "eucarc"
    file.write_text(text)
    with suppress(Halted):
        found = eucarc_source(file, cloud="default", home=HOME)
        assert found.values or found.reasons


@pytest.mark.parametrize(
    "piece",
    [
        "$(ls ",
        "${${",
        "$(echo ",
        "<<E\n",
        "if ",
        "case ",
        "f() {",
        "`ls *`;",
        "a-",
        "&& A=1 ",
        "A=$(x)\n",
        "${A:h",
        ";;",
        "A=1 x\n",
        "(",
        ". x\n",
        "A+=1\n",
        "A=1 #\n",
        "|| [ -n $A ] ",
        "{ A=1; } || ",
    ],
)
def test_any_text_is_parsed_in_short_time(piece: str) -> None:
    read(piece * 20_000)
    read(f"A={piece * 20_000}")


@pytest.mark.parametrize(
    "form", [f for f in OWN_FOLDER if "(%)" not in f and ":A" not in f and ":a" not in f and "0" not in f]
)
def test_bash_finds_the_same_folder(tmp_path: Path, form: str) -> None:
    file = tmp_path.resolve() / "eucarc"
    file.write_text(f"D={form}\n")
    result = subprocess.run(
        ["bash", "-c", f". {file}; echo $D"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert read_script(file.read_text(), path=file, home=HOME).variables["D"] == result.stdout.strip()
