"""A dependency that is not as pinned, or not allowed, is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from deploy import dependencies
from deploy.dependencies import (
    FORBIDDEN,
    REPOSITORY,
    RUNTIME_EXTRAS,
    app,
    closure,
    complaints_of_imports,
    complaints_of_licences,
    complaints_of_versions,
    imports_below,
    installed_in,
    licences,
    pins,
    requirements,
)

Install = Callable[..., None]

PROJECT = """
[project]
name = "monro"
dependencies = ["edge[fast]>=1"]
[project.optional-dependencies]
worker = ["monro", "Nets_Of.Ours"]
"""


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Make packages look installed in a folder."""

    def install(name: str, version: str, *lines: str) -> None:
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        head = ("Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}")
        (folder / "METADATA").write_text("\n".join((*head, *lines)))

    return install


def complaints(folder: Path, pinned: str, *asked: str) -> list[str]:
    installed = installed_in([folder])
    wanted = closure(map(Requirement, asked), installed)
    return list(complaints_of_versions(wanted, pins(pinned), installed))


def test_what_a_project_asks_for_is_followed_through_extras_and_markers(
    install: Install, tmp_path: Path
) -> None:
    needs = (
        "speed; extra == 'fast'",
        "slow",
        "never; python_version < '3'",
        "other; extra == 'dev'",
    )
    install("edge", "1.0", *(f"Requires-Dist: {each}" for each in needs))
    for name in ("speed", "slow", "nets-of-ours"):
        install(name, "1.0")
    wanted = closure(requirements(PROJECT, ["worker"]), installed_in([tmp_path]))

    assert wanted.found == {"edge", "speed", "slow", "nets-of-ours"}
    assert wanted.missing == frozenset()


def test_what_is_as_pinned_is_fine_whatever_its_build(install: Install, tmp_path: Path) -> None:
    install("Torch_Like", "2.13.0+cpu", "Requires-Dist: small")
    install("small", "1.0.0")

    assert complaints(tmp_path, "torch-like==2.13.0\nsmall==1.0", "torch-like") == []


def test_another_version_than_pinned_is_named(install: Install, tmp_path: Path) -> None:
    install("small", "1.0.1")

    (said,) = complaints(tmp_path, "small==1.0.0", "small")
    assert said == "small 1.0.1: constraints.txt pins 1.0.0; run `make install`"


def test_what_is_needed_and_missing_or_not_pinned_is_named(
    install: Install, tmp_path: Path
) -> None:
    install("small", "1.0", "Requires-Dist: absent")

    missing, unpinned = complaints(tmp_path, "", "small")
    assert missing.startswith("absent: is not installed")
    assert unpinned.startswith("small 1.0: is needed, and not pinned")


def test_what_another_package_prescribes_exactly_needs_no_pin(
    install: Install, tmp_path: Path
) -> None:
    install("torch-like", "2.13.0", "Requires-Dist: nvidia-x==13.0", "Requires-Dist: loose==2.*")
    install("nvidia-x", "13.0", "License: proprietary")
    install("loose", "2.1")

    (said,) = complaints(tmp_path, "torch-like==2.13.0", "torch-like")
    assert said.startswith("loose 2.1: is needed, and not pinned")
    assert list(complaints_of_licences(["nvidia-x"], installed_in([tmp_path]))) == []


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        (["License-Expression: BSD-3-Clause AND MIT"], True),
        (["License-Expression: GPL-2.0-only OR Apache-2.0"], True),
        (["License-Expression: MIT AND GPL-3.0-only"], False),
        (["Classifier: License :: OSI Approved :: MIT License", "License: see file"], True),
        (["Classifier: License :: OSI Approved :: MIT License",
          "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"], False),
        (["License: MIT"], True),
        (["License: AGPL"], False),
        ([], False),
    ],
)  # fmt: skip
def test_only_licences_of_the_table_are_allowed(
    install: Install, tmp_path: Path, lines: list[str], allowed: bool
) -> None:
    install("small", "1.0", *lines)
    said = list(complaints_of_licences(["small"], installed_in([tmp_path])))

    assert (said == []) is allowed


def test_what_is_forbidden_is_named_although_nothing_depends_on_it(
    install: Install, tmp_path: Path
) -> None:
    install("pylibjpeg-libjpeg", "2.4", "License: MIT")
    (said,) = complaints_of_licences([], installed_in([tmp_path]))

    assert "pylibjpeg-libjpeg: is forbidden (GPL-3.0" in said


def test_a_module_of_a_package_that_nobody_asked_for_is_named(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(
        "import os, small.part\n\ndef f():\n    from large import x\n    from . import near\n"
    )
    imported = imports_below([tmp_path])
    assert set(imported) == {"small", "large"}

    (said,) = complaints_of_imports(imported, {"small": ["Small"], "large": ["Large"]}, ["small"])
    assert "ours.py: imports large of large, which is no dependency" in said


def test_every_forbidden_package_is_absent_from_the_pins() -> None:
    pinned = pins((REPOSITORY / "constraints.txt").read_text())

    assert not FORBIDDEN.keys() & pinned.keys()


def test_an_audit_that_reaches_no_service_says_that_it_looked_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dependencies, "VULNERABILITIES", "http://127.0.0.1:1/")
    monkeypatch.setattr(dependencies, "_check", lambda: 0)
    done = CliRunner().invoke(app, ["audit"])

    assert done.exit_code == 0
    assert "known vulnerabilities: NOT LOOKED UP" in done.output


def test_the_bill_of_materials_names_what_runs(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["sbom", str(tmp_path / "sbom.json")])
    assert done.exit_code == 0, done.output
    listed = json.loads((tmp_path / "sbom.json").read_text())["components"]
    names = {each["name"] for each in listed}

    assert names >= {"pynetdicom", "torch", "cryptography"}
    assert "pytest" not in names
    installed = installed_in()
    asked = requirements((REPOSITORY / "pyproject.toml").read_text(), RUNTIME_EXTRAS)
    assert names == closure(asked, installed).found
    untold = {name for name in names if not licences(installed[name])}
    assert all(name.startswith(("nvidia-", "cuda-")) for name in untold)
