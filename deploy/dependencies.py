"""What monro depends on: is it what constraints.txt pins, may we use it, is anything known of it?

    python -m deploy.dependencies check   # offline, within seconds; part of `make check`
    python -m deploy.dependencies audit   # and what is known to be vulnerable, where that is told
    python -m deploy.dependencies sbom monro.cdx.json

Names of packages are canonical here (PEP 503): lower case, with hyphens.
"""

import ast
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import Distribution, distributions, packages_distributions, version
from pathlib import Path
from typing import Annotated, Final

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from rich.console import Console

from deploy.sbom import Component, write_sbom

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(soft_wrap=True)

REPOSITORY: Final = Path(__file__).parents[1]
OURS: Final = ("listener", "worker", "trainer", "deploy", "tests")

RUNTIME_EXTRAS: Final = ("worker", "trainer", "local")
INSTALLED_EXTRAS: Final = (*RUNTIME_EXTRAS, "dev")
"""What `make install` installs; `bench` is only for a benchmark."""

ALLOWED_LICENCES: Final = frozenset(
    {
        "0BSD", "Apache 2.0", "Apache License 2.0", "Apache Software License", "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception", "BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause",
        "BSL-1.0", "CC0-1.0", "ISC License (ISCL)", "MIT", "MIT License", "MIT-0", "MIT-CMU",
        "MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)", "New BSD", "PSF-2.0",
        "Python Software Foundation License", "Zlib",
    }
)  # fmt: skip
"""As packages write them: SPDX identifiers, classifiers, or what stands under `License`."""

EXCEPTIONS: Final[Mapping[str, str]] = {
    "psycopg": "LGPL-3.0-only: imported, unchanged and replaceable, never linked into our code",
    "psycopg-binary": "LGPL-3.0-only: as psycopg",
    "nvidia-*": "CUDA libraries under NVIDIA's licence: torch fetches them, we do not pass them on",
    "cuda-*": "as nvidia-*",
}
"""Packages at run time whose licence is not in the table above, and why they may be used."""

FORBIDDEN: Final[Mapping[str, str]] = {
    "pylibjpeg-libjpeg": "GPL-3.0: GDCM and pyjpegls read the same transfer syntaxes",
}
"""Packages that must not be installed at all: pydicom uses decoders that it merely finds."""

UNPINNED: Final = ("pip", "nvidia-*", "cuda-*")
"""A virtual environment comes with pip, and torch with CUDA where it is not the CPU's build."""

VULNERABILITIES: Final = "https://pypi.org/pypi/pip-audit/{}/json"
"""Where pip-audit reads what is known of a version, its own here. Mirrors often lack this."""

ANSWER_SECONDS: Final = 5.0

Installed = Mapping[str, Distribution]


@dataclass(frozen=True)
class Wanted:
    """Packages that the project needs, directly or not.

    Attributes:
        found: those that are installed.
        missing: those that are not.
        settled: those whose version another package prescribes exactly, as torch does for CUDA.
    """

    found: frozenset[str]
    missing: frozenset[str]
    settled: frozenset[str]


def installed_in(path: Iterable[Path] | None = None) -> dict[str, Distribution]:
    """What is installed, by name: in this environment, or in folders."""
    places = distributions() if path is None else distributions(path=[str(each) for each in path])
    return {canonicalize_name(each.name): each for each in places}


def pins(constraints: str) -> dict[str, Version]:
    """Versions that a constraints file pins.

    >>> pins("Jinja2==3.1.6")
    {'jinja2': <Version('3.1.6')>}
    """
    lines = (line.split("==") for line in constraints.splitlines() if "==" in line)
    return {canonicalize_name(name.strip()): Version(pinned.strip()) for name, pinned in lines}


def requirements(pyproject: str, extras: Iterable[str]) -> list[Requirement]:
    """What a project asks for by itself and by some of its extras."""
    project = tomllib.loads(pyproject)["project"]
    asked = [*project["dependencies"]]
    for extra in extras:
        asked += project["optional-dependencies"][extra]
    found = map(Requirement, asked)
    return [each for each in found if canonicalize_name(each.name) != project["name"]]


def closure(asked: Iterable[Requirement], installed: Installed) -> Wanted:
    """Everything that is needed for what is asked for."""
    found, missing, settled = set(), set(), set()
    todo = [(canonicalize_name(each.name), frozenset(each.extras)) for each in asked]
    seen = set()
    while todo:
        name, extras = this = todo.pop()
        if this in seen:
            continue
        seen.add(this)
        if name not in installed:
            missing.add(name)
            continue
        found.add(name)
        needs = map(Requirement, installed[name].requires or ())
        for each in (each for each in needs if _applies(each, extras)):
            todo.append((canonicalize_name(each.name), frozenset(each.extras)))
            if any(one.operator == "==" and "*" not in one.version for one in each.specifier):
                settled.add(canonicalize_name(each.name))
    return Wanted(frozenset(found), frozenset(missing), frozenset(settled))


def complaints_of_versions(
    wanted: Wanted, pinned: Mapping[str, Version], installed: Installed
) -> Iterator[str]:
    """Where what is installed is not what is pinned."""
    for name in sorted(wanted.missing):
        yield f"{name}: is not installed, and is needed; run `make install`"
    for name in sorted(wanted.found - pinned.keys() - wanted.settled):
        if any(fnmatch(name, pattern) for pattern in UNPINNED):
            continue
        found = installed[name].version
        yield f"{name} {found}: is needed, and not pinned; add it to constraints.txt"
    for name in sorted(pinned.keys() & installed.keys()):
        there = Version(installed[name].version)
        # A local part such as +cpu names a build of the same version.
        if Version(there.public) != Version(pinned[name].public):
            yield f"{name} {there}: constraints.txt pins {pinned[name]}; run `make install`"


def complaints_of_licences(names: Iterable[str], installed: Installed) -> Iterator[str]:
    """What may not be used at run time, or not be there at all."""
    for name in sorted(FORBIDDEN.keys() & installed.keys()):
        yield f"{name}: is forbidden ({FORBIDDEN[name]}); uninstall it"
    for name in sorted(names):
        if any(fnmatch(name, pattern) for pattern in EXCEPTIONS):
            continue
        said = licences(installed[name])
        if not said or not said <= ALLOWED_LICENCES:
            yield (
                f"{name}: its licence is {', '.join(sorted(said)) or 'not told'}; see whether "
                "Apache-2.0 software may depend on it, and enter it in deploy/dependencies.py"
            )


def licences(package: Distribution) -> frozenset[str]:
    """All licences that a package is under; of alternatives, the ones that we allow."""
    metadata = package.metadata
    expression = _field(package, "License-Expression")
    classifiers = [
        each.rpartition("::")[2].strip()
        for each in metadata.get_all("Classifier") or ()
        if each.startswith("License ::") and "OSI Approved ::" in each
    ]
    free = _field(package, "License")
    if not expression and classifiers:
        return frozenset(classifiers)
    found = (_chosen(part) for part in (expression or free).split(" AND "))
    return frozenset(part for part in found if part)


def complaints_of_imports(
    imported: Mapping[str, Path], providers: Mapping[str, list[str]], wanted: Iterable[str]
) -> Iterator[str]:
    """Modules that our code imports although nothing says that it depends on them.

    Args:
        imported: top-level modules, each with a file that imports it.
        providers: packages that a top-level module comes from.
        wanted: packages that the project depends on.
    """
    known = set(wanted)
    for module, file in sorted(imported.items()):
        packages = {canonicalize_name(each) for each in providers.get(module, ())}
        if packages and not packages & known:
            yield (
                f"{file}: imports {module} of {', '.join(sorted(packages))}, which is no "
                "dependency; add it to pyproject.toml and constraints.txt"
            )


def imports_below(folders: Iterable[Path]) -> dict[str, Path]:
    """Top-level modules that Python files import, without those of Python itself."""
    found = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            else:
                continue
            found.update({name.partition(".")[0]: path for name in names})
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names}


@app.command()
def check() -> None:
    """Compare what is installed with what is pinned and allowed; needs no network."""
    raise typer.Exit(_check())


@app.command()
def audit() -> None:
    """The same, and look up what is known to be vulnerable, where a service can be reached."""
    failed = _check()
    why_not = _unreachable()
    if why_not:
        console.print(
            f"known vulnerabilities: NOT LOOKED UP, {why_not}",
            style="yellow",
            markup=False,
        )
        raise typer.Exit(failed)
    # Without --strict, a package that the service does not know counts as one without faults.
    constraints = str(REPOSITORY / "constraints.txt")
    options = ["--strict", "--no-deps", "--disable-pip", "--progress-spinner=off", "--desc=off"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--requirement", constraints, *options], check=False
    )
    raise typer.Exit(failed or done.returncode)


@app.command()
def sbom(file: Annotated[Path, typer.Argument(help="CycloneDX, JSON")]) -> None:
    """Write what the programs are made of at run time, as it is installed here."""
    installed = installed_in()
    needed = closure(_asked(RUNTIME_EXTRAS), installed)
    if needed.missing:
        console.print(f"not installed: {', '.join(sorted(needed.missing))}", style="red")
        raise typer.Exit(1)
    write_sbom(
        file,
        [
            Component(name, installed[name].version, tuple(sorted(licences(installed[name]))))
            for name in sorted(needed.found)
        ],
    )
    console.print(f"{file}: {len(needed.found)} packages", markup=False)


def _check() -> int:
    installed = installed_in()
    pinned = pins((REPOSITORY / "constraints.txt").read_text())
    wanted = closure(_asked(INSTALLED_EXTRAS), installed)
    runtime = closure(_asked(RUNTIME_EXTRAS), installed)
    everything = wanted.found | {canonicalize_name(each.name) for each in _asked(["bench"])}
    folders = [REPOSITORY / name for name in OURS]
    complaints = [
        *complaints_of_versions(wanted, pinned, installed),
        *complaints_of_licences(runtime.found, installed),
        *complaints_of_imports(imports_below(folders), packages_distributions(), everything),
        *_complaints_of_pip(),
    ]
    for complaint in complaints:
        console.print(complaint, style="red", markup=False)
    if not complaints:
        console.print(
            f"dependencies: {len(wanted.found)} packages as pinned, {len(runtime.found)} of them "
            "at run time under licences that are allowed",
            markup=False,
        )
    return 1 if complaints else 0


def _asked(extras: Iterable[str]) -> list[Requirement]:
    return requirements((REPOSITORY / "pyproject.toml").read_text(), extras)


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""}))


def _field(package: Distribution, name: str) -> str:
    metadata = package.metadata
    return metadata[name].strip() if name in metadata else ""


def _chosen(alternatives: str) -> str:
    """Of a licence expression without AND: the first alternative that we allow, or the first."""
    found = [each.strip(" ()") for each in alternatives.split(" OR ")]
    return next((each for each in found if each in ALLOWED_LICENCES), found[0])


def _complaints_of_pip() -> list[str]:
    """Packages that contradict each other."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    return [f"pip check: {line}" for line in done.stdout.splitlines()] if done.returncode else []


def _unreachable() -> str:
    """Why nothing can be looked up; empty where it can."""
    url = VULNERABILITIES.format(version("pip-audit"))
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):
            return ""
    except OSError as error:
        return f"{url} does not answer: {getattr(error, 'reason', error)}"


if __name__ == "__main__":
    app()
