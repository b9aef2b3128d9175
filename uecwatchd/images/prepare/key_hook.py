"""Lines for rc.local that fetch the user's SSH key at boot, for guests without cloud-init.

They do what the manual of UEC puts there, and some things that real guests need: rc.local may run before the
network is up, may be a script that ends at the first failing command (`sh -e`), and must not make the boot
wait. The key of an instance is at a fixed address that every cloud with an EC2 interface has.
"""

import re
from dataclasses import dataclass

KEY_URL = "http://169.254.169.254/latest/meta-data/public-keys/0/openssh-key"
MARK = "# uecwatchd: these lines were added to the image, not to the file that it was made from."
SHELLS = re.compile(r"#!\s*(\S*/)?(env\s+)?(sh|bash|dash|ash|busybox\s+sh)(\s|$)")
# Lines that end a script, or hand it over to another program.
ENDING = re.compile(r"\s*(exit(\s+\S+)?|exec\s.*)\s*(#.*)?")
# The network of an instance is up within a minute, or will not be.
HOOK = """\
{mark}
(
    set +e
    trap "" HUP  # the init of busybox hangs up the console when this script has ended
    modprobe acpiphp 2>/dev/null  # so that volumes which are attached later appear
    user={user} keys={home}/.ssh url={url}
    fetch() {{
        if command -v curl >/dev/null; then
            curl -f -s -m 10 "$url"
        else  # that of busybox may know no time limit
            wget -q -T 10 -O - "$url" || wget -q -O - "$url"
        fi
    }}
    tries=0 key=
    while [ -z "$key" ] && [ $tries -lt 30 ]; do
        [ $tries -eq 0 ] || sleep 2
        key=$(fetch 2>/dev/null | grep -m 1 -E '^(ssh|ecdsa|sk)-')
        tries=$((tries + 1))
    done
    if [ -n "$key" ] && [ ! -L "$keys" ] && [ ! -L "$keys/authorized_keys" ]; then
        mkdir -p "$keys"
        grep -q -x -F "$key" "$keys/authorized_keys" 2>/dev/null ||
            printf '\\n%s\\n' "$key" >> "$keys/authorized_keys"
        chmod 700 "$keys"
        chmod 600 "$keys/authorized_keys"
        chown "$user" "$keys" "$keys/authorized_keys"
        restorecon -R "$keys" 2>/dev/null
    fi
    echo "AUTHORIZED_KEYS:"
    echo "************************"
    cat "$keys/authorized_keys"
    echo "************************"
) </dev/null &
"""


@dataclass(frozen=True, slots=True)
class GuestUser:
    """The user of a guest who gets the key, and the home folder."""

    name: str
    home: str


ROOT = GuestUser("root", "/root")


def is_shell_script(text: str) -> bool:
    """Tell if a text is a script for a shell, or may become one: it names no other interpreter."""
    return not text.startswith("#!") or SHELLS.match(text) is not None


def add_hook(script: str, user: GuestUser) -> str:
    """Return a shell script with the hook in it, where it is reached.

    It goes before the `exit 0` at the end, or to the end. Where another line may end the script earlier, it
    goes to the start.
    """
    if not script.startswith("#!"):
        script = f"#!/bin/sh\n{script}" if script.strip() else "#!/bin/sh\nexit 0\n"
    lines = script.removesuffix("\n").split("\n")
    code = [number for number, line in enumerate(lines) if line.strip() and not line.strip().startswith("#")]
    ends = [number for number in code if ENDING.fullmatch(lines[number])]
    place = len(lines)
    if ends:
        place = ends[0] if ends == code[-1:] else 1
    hook = HOOK.format(mark=MARK, user=user.name, home=user.home, url=KEY_URL)
    return "\n".join([*lines[:place], *hook.splitlines(), *lines[place:]]) + "\n"
