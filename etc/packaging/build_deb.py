"""Build the Debian package: `python3 etc/packaging/build_deb.py [FOLDER]`.

It has the program and all its libraries in /usr/lib/uecwatchd, a virtual environment for Debian's own Python.
Nothing in there knows where it was made: of its programs only a link to Python is left, and pyvenv.cfg names
/usr/bin alone. So it can be made in any folder.

Each library is an exact version with the hash of its file (requirements.txt); those that exist only as source
are compiled, by the setuptools of build-requirements.txt. To move to newer versions: etc/packaging/lock.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from email.utils import formatdate
from importlib.metadata import Distribution, distributions
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHON = "/usr/bin/python3"
PRIVATE = Path("usr/lib/uecwatchd")
DOC = Path("usr/share/doc/uecwatchd")
UNITS = Path("usr/lib/systemd/system")
ONCE = UNITS / "uecwatchd-once.service.d"
REVISION = "1"

# What is installed as it is, from the checkout to the package. All of it can be read by everybody; postinst
# makes the configuration from its example, when there is a group that may read it.
FILES = (
    ("systemd/uecwatchd.service", UNITS / "uecwatchd.service"),
    ("systemd/uecwatchd-once.service", UNITS / "uecwatchd-once.service"),
    ("systemd/uecwatchd-once.path", UNITS / "uecwatchd-once.path"),
    ("systemd/uecwatchd-once.timer", UNITS / "uecwatchd-once.timer"),
    ("systemd/uecwatchd-once.conf", ONCE / "20-once.conf"),
    ("systemd/uecwatchd-build.service", UNITS / "uecwatchd-build.service"),
    ("systemd/uecwatchd-build.path", UNITS / "uecwatchd-build.path"),
    ("systemd/uecwatchd.sysusers", Path("usr/lib/sysusers.d/uecwatchd.conf")),
    ("systemd/uecwatchd.tmpfiles", Path("usr/lib/tmpfiles.d/uecwatchd.conf")),
    ("systemd/uecwatchd.catalog", Path("usr/lib/systemd/catalog/uecwatchd.catalog")),
    ("etc/uecwatchd.toml", Path("usr/share/uecwatchd/uecwatchd.toml")),
    ("etc/packaging/uecadm.sudoers", Path("etc/sudoers.d/uecwatchd")),
    ("etc/packaging/debian/copyright", DOC / "copyright"),
    ("etc/doc/administration.md", DOC / "administration.md"),
    ("etc/packaging/debian/lintian-overrides", Path("usr/share/lintian/overrides/uecwatchd")),
)
# Every file in these folders is installed, if there are any.
FOLDERS = (("etc/examples", DOC / "examples"), ("etc/monitoring", DOC / "monitoring"))
# What etc/doc/build.py makes.
MANUAL = {
    "uecwatchd.8": Path("usr/share/man/man8/uecwatchd.8.gz"),
    "uecwatchd.toml.5": Path("usr/share/man/man5/uecwatchd.toml.5.gz"),
    "uecwatchd-sidecar.5": Path("usr/share/man/man5/uecwatchd-sidecar.5.gz"),
    "uecwatchd.bash": Path("usr/share/bash-completion/completions/uecwatchd"),
    "uecwatchd.zsh": Path("usr/share/zsh/vendor-completions/_uecwatchd"),
    "uecwatchd.fish": Path("usr/share/fish/vendor_completions.d/uecwatchd.fish"),
}
COMPRESSED = (("CHANGELOG.md", DOC / "changelog.gz"), ("README.md", DOC / "README.md.gz"))
# Not the configuration: `uecwatchd setup` writes into it, so that dpkg would ask what to keep at each
# upgrade with a new comment, and fail where nobody answers, while the service is stopped.
CONFFILES = ("/etc/sudoers.d/uecwatchd",)
SCRIPTS = ("postinst", "prerm", "postrm")

# -P and -s: the folder of the caller, and the packages in a user's home, are not ours.
PROGRAM = """#!/usr/lib/uecwatchd/bin/python -sP
import sys

from uecwatchd.cli.main import main

sys.exit(main())
"""

# What the program needs beside Python: sysusers and journald, `kill` for a reload, the bus for the unit's
# settings.
NEEDED = ("systemd", "procps", "default-dbus-system-bus | dbus-system-bus")
# The libraries of the system that compiled modules use. The versions are those of Debian 12.
SYSTEM_LIBRARIES = {
    "libsystemd.so.0": "libsystemd0",
    "libgcc_s.so.1": "libgcc-s1",
    "libstdc++.so.6": "libstdc++6",
    "libz.so.1": "zlib1g",
    **dict.fromkeys(
        (
            *("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libresolv.so.2"),
            "ld-linux-x86-64.so.2",
        ),
        "libc6 (>= 2.34)",
    ),
    "ld-linux-aarch64.so.1": "libc6 (>= 2.34)",
}
# botocore describes 400 services of Amazon, in 25 MB. These are images and buckets, and the ways to log in.
AWS_SERVICES = {"ec2", "s3", "sts", "sso", "sso-oidc", "signin"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the Debian package of this checkout.")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(), help="where to write it (default: here)"
    )
    parser.add_argument("--version", help="of the package, instead of that in pyproject.toml with a revision")
    parser.add_argument(
        "--libraries",
        type=Path,
        metavar="DIR",
        help="for a trial: take libraries from this site-packages as they are there, and do not compress",
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uecwatchd-deb-") as work:
        built = build(Path(work), given.folder, version=given.version, libraries=given.libraries)
    sys.stdout.write(f"{built}\n")


def build(work: Path, folder: Path, *, version: str | None, libraries: Path | None) -> Path:
    os.umask(0o022)
    tree = work / "tree"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = version or f"{project['version']}-{REVISION}"
    packages = make_environment(tree / PRIVATE)
    if libraries:
        copy_libraries(libraries, packages)
        copy_ourselves(packages, project["version"])
        compile_modules(packages / "uecwatchd", tree)
        write_manual(tree, PYTHON, modules_at=(packages, libraries))
    else:
        python = build_python(work)
        install(python, download(python, work), packages)
        install(python, own_wheel(python, work), packages)
        compile_modules(packages, tree)
        strip_modules(packages)
        write_manual(tree, python, modules_at=(packages,))
    keep_services(packages / "botocore/data")
    install_files(tree)
    write_documents(tree, packages, version)
    write_control(tree, packages, version)
    return pack(tree, folder, version, fast=bool(libraries))


# --- the virtual environment ------------------------------------------------------------------------------


def make_environment(place: Path) -> Path:
    """Make an empty virtual environment; return the folder for its packages."""
    name = f"python{python_version()}"
    packages = place / "lib" / name / "site-packages"
    packages.mkdir(parents=True)
    (place / "bin").mkdir()
    (place / "bin" / "python").symlink_to(f"../../../bin/{name}")
    lines = ("home = /usr/bin", "include-system-site-packages = false", f"version = {python_version()}")
    (place / "pyvenv.cfg").write_text("".join(f"{line}\n" for line in lines))
    return packages


def python_version() -> str:
    return run(PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()


def build_python(work: Path) -> str:
    """Return a Python that can build wheels, with exactly the setuptools that is meant."""
    run(PYTHON, "-m", "venv", work / "build")
    python = str(work / "build/bin/python")
    requirements = HERE / "build-requirements.txt"
    run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "--upgrade", "-r", requirements)
    return python


def download(python: str, work: Path) -> list[Path]:
    """Fetch all libraries as wheels, and build those that are source only."""
    wheels = work / "wheels"
    options = ("--quiet", "--no-deps", "--require-hashes", "--no-build-isolation", "--wheel-dir", wheels)
    run(python, "-m", "pip", "wheel", *options, "-r", HERE / "requirements.txt")
    return sorted(wheels.glob("*.whl"))


def own_wheel(python: str, work: Path) -> list[Path]:
    """Build our own wheel from a copy, since setuptools writes beside the source."""
    source = work / "source"
    source.mkdir()
    copy_source(source)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", work / "own")
    run(python, "-m", "pip", "wheel", *options, source)
    return sorted((work / "own").glob("*.whl"))


def install(python: str, wheels: list[Path], packages: Path) -> None:
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--upgrade", "--target", packages)
    run(python, "-m", "pip", "install", *options, *wheels)
    shutil.rmtree(packages / "bin", ignore_errors=True)  # programs of libraries
    for path in packages.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def copy_libraries(source: Path, packages: Path) -> None:
    """Copy what requirements.txt names, as far as it is there."""
    wanted = set(re.findall(r"^([a-z0-9.-]+)==", (HERE / "requirements.txt").read_text(), re.MULTILINE))
    for one in distributions(path=[str(source)]):
        if canonical(one) in wanted:
            for file in one.files or ():
                if file.parts[0] != ".." and (source / file).is_file():
                    (packages / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source / file, packages / file)


def copy_ourselves(packages: Path, version: str) -> None:
    """Copy the program without a wheel, which would take a setuptools that may not be there."""
    copy_source(packages)
    metadata = f"Metadata-Version: 2.1\nName: uecwatchd\nVersion: {version}\n"
    put(packages / f"uecwatchd-{version}.dist-info/METADATA", metadata.encode())


def copy_source(folder: Path) -> None:
    shutil.copytree(ROOT / "uecwatchd", folder / "uecwatchd", ignore=shutil.ignore_patterns("__pycache__"))


def canonical(one: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()


def compile_modules(folder: Path, tree: Path) -> None:
    """Write Python's cache, which the service has no right to write; it is for this Python alone."""
    options = ("-q", "-q", "-j0", "--invalidation-mode", "unchecked-hash", "-s", tree, "-p", "/")
    run(PYTHON, "-m", "compileall", *options, folder, check=False)  # templates for other Pythons fail


def strip_modules(packages: Path) -> None:
    for module in modules(packages):
        run("strip", "--strip-unneeded", module)


def modules(packages: Path) -> list[Path]:
    return [path for path in packages.rglob("*.so*") if path.is_file()]


def keep_services(data: Path) -> None:
    for folder in data.iterdir():
        if folder.is_dir() and folder.name not in AWS_SERVICES:
            shutil.rmtree(folder)


# --- the other files --------------------------------------------------------------------------------------


def install_files(tree: Path) -> None:
    program = tree / "usr/bin/uecwatchd"
    put(program, PROGRAM.encode(), mode=0o755)
    listed = [(ROOT / source, place) for source, place in FILES]
    for folder, place in FOLDERS:
        files = sorted(path for path in (ROOT / folder).rglob("*") if path.is_file())
        listed += [(file, place / file.relative_to(ROOT / folder)) for file in files]
    for source, place in listed:
        put(tree / place, source.read_bytes(), mode=0o755 if os.access(source, os.X_OK) else 0o644)
    for source, place in COMPRESSED:
        put(tree / place, gzip.compress((ROOT / source).read_bytes(), mtime=0))
    # Before its own settings those of the service: one file for both, so that they have the same rights.
    (tree / ONCE / "10-as-the-service.conf").symlink_to("../uecwatchd.service")
    (tree / "etc/sudoers.d/uecwatchd").chmod(0o440)


def write_manual(tree: Path, python: str, *, modules_at: Iterable[Path]) -> None:
    """Make the manual pages and completions by a Python that has shtab, with the program's own modules."""
    found = ":".join(str(folder.resolve()) for folder in modules_at)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": found, "PYTHONDONTWRITEBYTECODE": "1"}
        run(python, ROOT / "etc/doc/build.py", folder, environment=environment)
        for name, place in MANUAL.items():
            data = (Path(folder) / name).read_bytes()
            put(tree / place, gzip.compress(data, mtime=0) if place.suffix == ".gz" else data)


def put(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def write_documents(tree: Path, packages: Path, version: str) -> None:
    date = formatdate(source_date(), localtime=False)
    text = (HERE / "debian/changelog").read_text().format(version=version, date=date)
    put(tree / DOC / "changelog.Debian.gz", gzip.compress(text.encode(), mtime=0))
    found = sorted(distributions(path=[str(packages)]), key=canonical)
    lines = [f"{canonical(one)} {one.version}: {licence(one)}\n" for one in found]
    put(tree / DOC / "README.libraries", "".join(lines).encode())


def licence(one: Distribution) -> str:
    """Return what a library says of its licence: a newer field, an older one, or a classifier."""
    said: Mapping[str, str] = dict(one.metadata.items())
    classifiers = (value for key, value in one.metadata.items() if key == "Classifier")
    classified = (text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: "))
    plain = said.get("License", "").partition("\n")[0]
    return said.get("License-Expression") or plain or next(classified, "see its folder")


def source_date() -> int:
    """Return the time of the last commit, so that the same sources make the same package."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    return int(run("git", "-C", ROOT, "log", "-1", "--format=%ct", check=False).strip() or 0)


def write_control(tree: Path, packages: Path, version: str) -> None:
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    values = {
        "version": version,
        "architecture": architecture(),
        "size": sum(path.stat().st_size for path in files) // 1024,
        "depends": ", ".join(dependencies(packages)),
    }
    control = (HERE / "debian/control").read_text().format(**values)
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files)
    put(tree / "DEBIAN/control", control.encode())
    put(tree / "DEBIAN/conffiles", "".join(f"{path}\n" for path in CONFFILES).encode())
    put(tree / "DEBIAN/md5sums", "".join(sums).encode())
    for name in SCRIPTS:
        put(tree / "DEBIAN" / name, (HERE / "debian" / name).read_bytes(), mode=0o755)


def dependencies(packages: Path) -> Iterator[str]:
    """Yield what the package depends on: the one version of Python that its modules are compiled for, …"""
    major, minor = map(int, python_version().split("."))
    yield f"python3 (>= {major}.{minor})"
    yield f"python3 (<< {major}.{minor + 1})"
    names = {name for module in modules(packages) for name in linked(module)}
    own = {path.name for path in modules(packages)}
    yield from sorted({SYSTEM_LIBRARIES[name] for name in names - own})
    yield from NEEDED


def linked(module: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "--dynamic", "--wide", module))


def architecture() -> str:
    return run("dpkg", "--print-architecture").strip()


def pack(tree: Path, folder: Path, version: str, *, fast: bool) -> Path:
    place = folder / f"uecwatchd_{version}_{architecture()}.deb"
    how = ("-Znone",) if fast else ()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(source_date())}
    run("dpkg-deb", *how, "--root-owner-group", "--build", tree, place, environment=environment)
    return place


def run(*command: str | Path, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        text=True,
        check=check,
        env={**(environment or os.environ), "LC_ALL": "C.UTF-8"},
    )
    return done.stdout


if __name__ == "__main__":
    main()
