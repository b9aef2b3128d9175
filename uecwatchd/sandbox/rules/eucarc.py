"""The file of shell variables that a cloud gave its users, as each generation wrote it.

The users' tools source it, so it is bash: it finds its own folder, and has aliases and warnings in it.
"""

from collections.abc import Mapping

_ALIASES = """\
alias ec2-bundle-image="ec2-bundle-image --cert ${{EC2_CERT}} --privatekey ${{EC2_PRIVATE_KEY}} \
--user {user} --ec2cert ${{{cloud_certificate_variable}}}"
alias ec2-upload-bundle="ec2-upload-bundle -a ${{EC2_ACCESS_KEY}} -s ${{EC2_SECRET_KEY}} --url ${{S3_URL}}"
"""


def _aliases(user: str, *, certificate: str = "EUCALYPTUS_CERT") -> str:
    return _ALIASES.replace("{user}", user).replace("{cloud_certificate_variable}", certificate)


_UEC = """\
EUCA_KEY_DIR=$(dirname $(readlink -f ${{BASH_SOURCE}}))
export S3_URL={s3_url}
export EC2_URL={ec2_url}
export EC2_PRIVATE_KEY=${{EUCA_KEY_DIR}}/{user_key}
export EC2_CERT=${{EUCA_KEY_DIR}}/{user_certificate}
export EUCALYPTUS_CERT=${{EUCA_KEY_DIR}}/{cloud_certificate}
export EC2_ACCESS_KEY='{access_key}'
export EC2_SECRET_KEY='{secret_key}'
# The number of the user, not of an account: this generation has none. Bundles carry it.
export EC2_USER_ID='{user_number}'
""" + _aliases("${{EC2_USER_ID}}")

# Services that are not there get a warning in place of their variable.
_EUCALYPTUS = """\
EUCA_KEY_DIR=$(cd $(dirname ${{BASH_SOURCE:-$0}}); pwd -P)
export EC2_URL={ec2_url}
export S3_URL={s3_url}
export EUARE_URL={url}/services/Euare
export TOKEN_URL={url}/services/Tokens
echo WARN: Auto Scaling service URL is not configured. >&2
echo WARN: Load Balancing service URL is not configured. >&2
export EC2_PRIVATE_KEY=${{EUCA_KEY_DIR}}/{user_key}
export EC2_CERT=${{EUCA_KEY_DIR}}/{user_certificate}
export EC2_JVM_ARGS=-Djavax.net.ssl.trustStore=${{EUCA_KEY_DIR}}/jssecacerts
export EUCALYPTUS_CERT=${{EUCA_KEY_DIR}}/{cloud_certificate}
export EC2_ACCOUNT_NUMBER='{account}'
export EC2_ACCESS_KEY='{access_key}'
export EC2_SECRET_KEY='{secret_key}'
export AWS_ACCESS_KEY='{access_key}'
export AWS_SECRET_KEY='{secret_key}'
export AWS_CREDENTIAL_FILE=${{EUCA_KEY_DIR}}/iamrc
export EC2_USER_ID='{account}'
""" + _aliases("${{EC2_ACCOUNT_NUMBER}}")

# From 4.0 the words in the paths are the services' own names.
_EUCALYPTUS_4 = _EUCALYPTUS.replace("export EUARE_URL=", "export AWS_IAM_URL=")

# What the dashboard of OpenStack gave out: everybody's user id is 42.
_OPENSTACK = """\
NOVARC=$(readlink -f "${{BASH_SOURCE:-${{0}}}}" 2>/dev/null)
NOVA_KEY_DIR=${{NOVARC%/*}}
export EC2_ACCESS_KEY={access_key}
export EC2_SECRET_KEY={secret_key}
export EC2_URL={ec2_url}
export S3_URL={s3_url}
export EC2_USER_ID=42 # nova does not use user id, but bundling requires it
export EC2_PRIVATE_KEY=${{NOVA_KEY_DIR}}/{user_key}
export EC2_CERT=${{NOVA_KEY_DIR}}/{user_certificate}
export NOVA_CERT=${{NOVA_KEY_DIR}}/{cloud_certificate}
export EUCALYPTUS_CERT=${{NOVA_CERT}} # bundling tools want it by this name
""" + _aliases("${{EC2_USER_ID}}", certificate="NOVA_CERT")

# No cloud wrote this one: it is what users of the tools wrote for themselves.
_AWS = """\
EC2_KEY_DIR=$(cd $(dirname ${{BASH_SOURCE:-$0}}); pwd -P)
export EC2_URL={ec2_url}
export S3_URL={s3_url}
export EC2_PRIVATE_KEY=${{EC2_KEY_DIR}}/{user_key}
export EC2_CERT=${{EC2_KEY_DIR}}/{user_certificate}
export EUCALYPTUS_CERT=${{EC2_KEY_DIR}}/{cloud_certificate}
export EC2_ACCOUNT_NUMBER='{account}'
export EC2_ACCESS_KEY='{access_key}'
export EC2_SECRET_KEY='{secret_key}'
export AWS_ACCESS_KEY_ID='{access_key}'
export AWS_SECRET_ACCESS_KEY='{secret_key}'
"""

# The fields of a template are those of `identity.write_eucarc`.
EUCARCS: Mapping[str, str] = {
    "sandbox": _UEC.replace("{user_number}", "{account}"),  # which it checks, as later generations do
    "uec": _UEC,
    "euca3": _EUCALYPTUS,
    "euca4": _EUCALYPTUS_4,
    "euca5": _EUCALYPTUS_4,
    "openstack": _OPENSTACK,
    "aws": _AWS,
}
