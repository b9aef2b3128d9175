import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uecwatchd.clouds.credentials.shell import read_script

PATH = Path("/home/alice/.euca/eucarc")
HOME = Path("/var/lib/uecwatchd")

UEC = """\
EUCA_KEY_DIR=$(dirname $(readlink -f ${BASH_SOURCE}))
export S3_URL=http://192.168.1.10:8773/services/Walrus
export EC2_URL=http://192.168.1.10:8773/services/Eucalyptus
export EC2_PRIVATE_KEY=${EUCA_KEY_DIR}/euca2-admin-c8bd1a3f-pk.pem
export EC2_CERT=${EUCA_KEY_DIR}/euca2-admin-c8bd1a3f-cert.pem
export EC2_JVM_ARGS=-Djavax.net.ssl.trustStore=${EUCA_KEY_DIR}/jssecacerts
export EUCALYPTUS_CERT=${EUCA_KEY_DIR}/cloud-cert.pem
export EC2_ACCESS_KEY='WKy3rMzOWPouVOxK1p3Ar1C2uRBwa2FBXnCw'
export EC2_SECRET_KEY='HIBmGPfQ0oGzkTEBMGyBnDM4lVNYi8ZrLTMsg=='
# This is a bogus value; Eucalyptus does not need this but client tools do.
export EC2_USER_ID='000100729354'
alias ec2-bundle-image="ec2-bundle-image --cert ${EC2_CERT} --privatekey ${EC2_PRIVATE_KEY} EC2_URL=wrong"
"""

EUCA2 = """\
EUCA_KEY_DIR=$(dirname $(readlink -f ${BASH_SOURCE}))
export S3_URL=http://10.2.0.1:8773/services/Walrus
export EC2_URL=http://10.2.0.1:8773/services/Eucalyptus
export EC2_PRIVATE_KEY=${EUCA_KEY_DIR}/euca2-bob-0b3d5c1e-pk.pem
export EC2_CERT=${EUCA_KEY_DIR}/euca2-bob-0b3d5c1e-cert.pem
export EC2_JVM_ARGS=-Djavax.net.ssl.trustStore=${EUCA_KEY_DIR}/jssecacerts
export EUCALYPTUS_CERT=${EUCA_KEY_DIR}/cloud-cert.pem
export EC2_ACCESS_KEY='y8wPLQBa4m2EwfPrDfgNx2AHuDlq2Nb2Qk9w'
export EC2_SECRET_KEY='JmQ0bPzB6lH1yEwMdcCkXhK3vV1T0aQ8gA'
# The tools from Amazon look for a number here, whatever it is.
export EC2_USER_ID='000100729354'
alias ec2-upload-bundle="ec2-upload-bundle -a ${EC2_ACCESS_KEY} -s ${EC2_SECRET_KEY} --url ${S3_URL}"
"""

EUCA3 = """\
EUCA_KEY_DIR=$(cd $(dirname ${BASH_SOURCE:-$0}); pwd -P)
export EC2_URL=http://10.3.0.1:8773/services/Eucalyptus
export S3_URL=http://10.3.0.1:8773/services/Walrus
export EUARE_URL=http://10.3.0.1:8773/services/Euare
export TOKEN_URL=http://10.3.0.1:8773/services/Tokens
export AWS_AUTO_SCALING_URL=http://10.3.0.1:8773/services/AutoScaling
export EC2_PRIVATE_KEY=${EUCA_KEY_DIR}/euca2-admin-6e2a9b0d-pk.pem
export EC2_CERT=${EUCA_KEY_DIR}/euca2-admin-6e2a9b0d-cert.pem
export EUCALYPTUS_CERT=${EUCA_KEY_DIR}/cloud-cert.pem
export EC2_ACCOUNT_NUMBER='000100729354'
export EC2_ACCESS_KEY='AKIAAAAAAAAAAAAAAAA3'
export EC2_SECRET_KEY='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'
export AWS_ACCESS_KEY='AKIAAAAAAAAAAAAAAAA3'
export AWS_SECRET_KEY='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'
export AWS_CREDENTIAL_FILE=${EUCA_KEY_DIR}/iamrc
export EC2_USER_ID='000100729354'
alias ec2-bundle-image="ec2-bundle-image --cert ${EC2_CERT} --user ${EC2_ACCOUNT_NUMBER} EC2_URL=wrong"
"""

EUCA4 = """\
EUCA_KEY_DIR=$(cd $(dirname ${BASH_SOURCE:-$0}); pwd -P)
export EC2_URL=http://10.1.1.1:8773/services/compute
export S3_URL=http://10.1.1.1:8773/services/objectstorage/
export EUARE_URL=http://10.1.1.1:8773/services/Euare
echo WARN: CloudFormation is not configured. Using EC2_URL=wrong instead.
export EC2_ACCOUNT_NUMBER='000100729354'
export EC2_CERT=${EUCA_KEY_DIR}/euca2-admin-c8bd1a3f-cert.pem
export AWS_CREDENTIAL_FILE=${EUCA_KEY_DIR}/iamrc
alias euca-upload-bundle="euca-upload-bundle -a ${EC2_ACCESS_KEY} EC2_URL=wrong"
"""


def test_the_eucarc_of_uec_is_understood() -> None:
    found = read_script(UEC, path=PATH, home=HOME).variables
    assert found["EC2_PRIVATE_KEY"] == "/home/alice/.euca/euca2-admin-c8bd1a3f-pk.pem"
    assert found["EUCALYPTUS_CERT"] == "/home/alice/.euca/cloud-cert.pem"
    assert found["EC2_SECRET_KEY"] == "HIBmGPfQ0oGzkTEBMGyBnDM4lVNYi8ZrLTMsg=="
    assert found["EC2_USER_ID"] == "000100729354"
    assert found["S3_URL"] == "http://192.168.1.10:8773/services/Walrus"


def test_the_eucarc_of_eucalyptus_4_is_understood() -> None:
    found = read_script(EUCA4, path=PATH, home=HOME).variables
    assert found["EC2_URL"] == "http://10.1.1.1:8773/services/compute"
    assert found["EC2_CERT"] == "/home/alice/.euca/euca2-admin-c8bd1a3f-cert.pem"
    assert found["EC2_ACCOUNT_NUMBER"] == "000100729354"


@pytest.mark.parametrize("text", [UEC, EUCA2, EUCA3, EUCA4], ids=["1.6", "2.0", "3.x", "4.x"])
def test_the_eucarc_of_each_generation_has_keys_and_addresses(text: str) -> None:
    found = read_script(text, path=PATH, home=HOME).variables
    assert found["EC2_URL"].startswith("http://1")
    assert found["EC2_CERT"].startswith("/home/alice/.euca/euca2-")
    assert (found.get("EC2_ACCOUNT_NUMBER") or found["EC2_USER_ID"]) == "000100729354"
    assert "wrong" not in " ".join(found.values())


OPENSTACK = """\
NOVARC=$(readlink -f "${BASH_SOURCE:-${0}}" 2>/dev/null) || NOVARC=$(python -c 'import os; print(1)')
NOVA_KEY_DIR=${NOVARC%/*}
export EC2_ACCESS_KEY=70b2e1b1c5f14f4c8d7b1c8e3f0a9d2e
export EC2_SECRET_KEY=5e0c7b9a3d1f4e6b8a2c4d6e8f0a1b3c
export EC2_URL=http://10.9.0.1:8788/
export EC2_USER_ID=42 # nobody asks for it, and bundling wants one
export EC2_PRIVATE_KEY=${NOVA_KEY_DIR}/pk.pem
export EC2_CERT=${NOVA_KEY_DIR}/cert.pem
export NOVA_CERT=${NOVA_KEY_DIR}/cacert.pem
export EUCALYPTUS_CERT=${NOVA_CERT} # euca-bundle-image seems to require this set
"""


def test_the_ec2rc_of_openstack_is_understood() -> None:
    found = read_script(OPENSTACK, path=PATH, home=HOME).variables
    assert found["EC2_PRIVATE_KEY"] == "/home/alice/.euca/pk.pem"
    assert found["EUCALYPTUS_CERT"] == "/home/alice/.euca/cacert.pem"
    assert found["EC2_URL"] == "http://10.9.0.1:8788/"


@pytest.mark.parametrize(
    "form",
    [
        "$(dirname $(readlink -f ${BASH_SOURCE}))",
        "$(cd $(dirname ${BASH_SOURCE:-$0}); pwd -P)",
        "$(cd $(dirname $(readlink -f $BASH_SOURCE)) && pwd)",
        '"$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"',
        "`dirname $0`",
        "/home/alice/.euca",
        "'/home/alice/.euca'",
    ],
)
def test_the_folder_is_found_in_every_historical_form(form: str) -> None:
    text = f"export EUCA_KEY_DIR={form}  # here\nexport EC2_CERT=${{EUCA_KEY_DIR}}/cert.pem\n"
    assert read_script(text, path=PATH, home=HOME).variables["EC2_CERT"] == "/home/alice/.euca/cert.pem"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        pytest.param("A=plain", "plain", id="without export"),
        pytest.param("  export A=plain", "plain", id="indented"),
        pytest.param("export A=plain # a comment", "plain", id="comment behind it"),
        pytest.param("export A=pla#in", "pla#in", id="no comment inside a word"),
        pytest.param("export A='$HOME \"x\"'", '$HOME "x"', id="single quotes keep everything"),
        pytest.param('export A="x ${B}/y"', "x b/y", id="double quotes expand"),
        pytest.param('export A="it\'s $B"', "it's b", id="an apostrophe in double quotes"),
        pytest.param('export A="\\"q\\" \\$B \\n"', '"q" $B \\n', id="escapes in double quotes"),
        pytest.param("export A=x\\ y", "x y", id="escaped space"),
        pytest.param("export A=$B/c", "b/c", id="variable without braces"),
        pytest.param("export A=${C:-d}/e", "d/e", id="default of a variable that is not set"),
        pytest.param("export A=${B:-d}", "b", id="default of a variable that is set"),
        pytest.param("C= A=${C}x", "x", id="a variable that is set to nothing"),
        pytest.param("export A=$HOME/.euca/pk.pem", f"{HOME}/.euca/pk.pem", id="home"),
        pytest.param("export A=~/.euca/pk.pem", f"{HOME}/.euca/pk.pem", id="tilde"),
        pytest.param("export A='~/pk.pem'", "~/pk.pem", id="a tilde in quotes is one"),
        pytest.param("export A=~alice", "~alice", id="a tilde before a name is left"),
        pytest.param("export A=${C:-$HOME/.euca}", f"{HOME}/.euca", id="home in a default"),
        pytest.param("export D=x && export A=y", "y", id="behind &&"),
        pytest.param("A=1&&D=2", "1", id="&& without spaces"),
        pytest.param("A=1||A=2", "1", id="|| behind what is known"),
        pytest.param("A=$(hostname) || A=2", "2", id="|| behind what is not"),
        pytest.param("echo hello; A=1", "1", id="behind a command"),
        pytest.param("if true; then A=1; fi", "1", id="a branch"),
        pytest.param("export \\\n  A=1", "1", id="continued before the name"),
        pytest.param("export A=x\\\ny", "xy", id="continued in a word"),
        pytest.param('export A="x\\\ny"', "xy", id="continued in double quotes"),
        pytest.param("export A='x\ny'", "x\ny", id="quotes over two lines"),
        pytest.param("A=1\necho 'see\nA=EVIL\n'", "1", id="a line inside of a quote is no assignment"),
        pytest.param("# it's here\nA=1", "1", id="a quote in a comment opens nothing"),
        pytest.param("C=/a/b/c A=${C%/*}", "/a/b", id="the folder of a path"),
        pytest.param("C=abc A=${C%/*}", "abc", id="no folder in a path"),
        pytest.param("export A=", "", id="empty"),
        pytest.param("export A=1; export D=2", "1", id="two on a line"),
        pytest.param("export D=2 A=1", "1", id="one export for two"),
        pytest.param("export A=x\r", "x", id="a line end from Windows"),
        pytest.param("export A=$", "$", id="a lone dollar"),
    ],
)
def test_a_value_is_read_as_a_shell_would(line: str, value: str) -> None:
    assert read_script(f"B=b\n{line}\n", path=PATH, home=HOME).variables["A"] == value


@pytest.mark.parametrize(
    "line",
    [
        "export A=$(cat /etc/shadow)",
        "export A=`whoami`",
        'export A="x-$(hostname)"',
        "export A='open",
        'export A="open',
        "export A=$(open",
        "export A=$NOBODY/x",
        "export A=${NOBODY}/x",
        "export A=${HOME:0:2}",
        "B=$(hostname); A=$B/x",
        "# export A=x",
        "echo A=x",
        'alias a="b A=x"',
        "export A",
        "unset A",
    ],
)
def test_a_value_that_needs_a_shell_is_left_unset(line: str) -> None:
    assert "A" not in read_script(line, path=PATH, home=HOME).variables


WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
QUOTED = WORDS.map(shlex.quote)
DOUBLE_QUOTED = WORDS.map(lambda word: '"' + "".join(f"\\{c}" if c in '"\\$`' else c for c in word) + '"')
# A bare $V0 would take the next word's letters for its own: those are names that nothing sets.
REFERENCES = st.sampled_from(
    ['"$V0"', "${V0}", '"${V0} $V0"', "${UNSET_HERE:-other}", "${EUCA_KEY_DIR}/pk.pem"]
)
VALUES = st.lists(QUOTED | DOUBLE_QUOTED | REFERENCES, min_size=1, max_size=3).map("".join)


@settings(max_examples=25, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=8))
def test_the_parser_and_bash_agree(values: list[str]) -> None:
    lines = ["EUCA_KEY_DIR=$(cd $(dirname ${BASH_SOURCE:-$0}); pwd -P)"]
    lines += ["export V0="]
    lines += [f"export V{index}={value}" for index, value in enumerate(values)]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name).resolve() / "eucarc"
        path.write_text("\n".join(lines) + "\n")
        shell = ["bash", "-c", f"source {path}; env -0"]
        printed = subprocess.run(shell, capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"}).stdout
        by_bash = dict(line.split("=", 1) for line in printed.decode().split("\0") if "=" in line)
        ours = read_script(path.read_text(), path=path, home=HOME).variables
    assert {name: ours[name] for name in ours if name != "EUCA_KEY_DIR"} == {
        name: by_bash[name] for name in by_bash if name[0] == "V"
    }


SCRIPT = st.lists(
    st.sampled_from(list("A=x~ \t\n\r;&|#'\"`$(){}:-%/*\\"))
    | st.sampled_from(["export ", "${A", "${A:-", "\u2028"])
    | st.characters()
).map("".join)


@settings(max_examples=200, deadline=None)
@given(SCRIPT)
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    assert all(isinstance(value, str) for value in read_script(text, path=PATH, home=HOME).variables.values())
    assert read_script(f"set_before=1\n{text}", path=PATH, home=HOME).variables["set_before"] == "1"


@pytest.mark.parametrize("piece", ["${A:-", '"$(', "$(", "`", "\\\n", "A=$A;", "'\"", "${A:-$", "&|;", "${"])
def test_any_text_is_parsed_in_short_time(piece: str) -> None:
    read_script(f"A={piece * 20_000}", path=PATH, home=HOME)
