"""What people read leads somewhere: links, headings, commands, paths and settings exist."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from deploy.configuration import REFERENCE
from listener.__main__ import app as listener
from listener.tables import TRANSITIONS
from tests.deploy.reading import DEPLOY, REPOSITORY
from trainer.__main__ import app as trainer
from worker.__main__ import app as worker

PROGRAMS: Final = {
    name: typer.main.get_command(app)
    for name, app in (("listener", listener), ("worker", worker), ("trainer", trainer))
}
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<words>.+)$", re.MULTILINE)
NOT_IN_AN_ANCHOR = re.compile(r"[^\w\- ]")
MAKE = re.compile(r"(?:^|`|&& )make (?P<target>[a-z][a-z-]*[a-z])(?![\w-])", re.MULTILINE)
TARGET = re.compile(r"^(?P<target>[a-z][a-z-]*):", re.MULTILINE)
PYTHON = re.compile(r"python -m (?P<module>[a-z_.]*[a-z_])(?P<rest>[^`\n|&#;()]*)")
CODE = re.compile(r"`(?P<words>[^`\n]+)`")
PATH = re.compile(r"(?:listener|worker|trainer|deploy|docs|tests)/[\w./-]*\w")
SETTING = re.compile(r"MONRO_[A-Z][A-Z_]*[A-Z]")
MADE_WHEN_USED: Final = frozenset({"deploy/compose/.env", "deploy/compose/secrets"})


def pages() -> list[Path]:
    """Every page that belongs to the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [REPOSITORY / name for name in listed.stdout.splitlines()]


every_page = pytest.mark.parametrize(
    "page", pages(), ids=lambda path: str(path.relative_to(REPOSITORY))
)


def anchors(page: Path) -> set[str]:
    """Those that GitHub makes of a page's headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in HEADING.finditer(FENCE.sub("", page.read_text())):
        words = LINK.sub(lambda link: link[0].partition("]")[0].lstrip("!["), heading["words"])
        anchor = NOT_IN_AN_ANCHOR.sub("", words.strip().lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """File and anchor of every link that stays within the repository."""
    for link in LINK.finditer(FENCE.sub("", page.read_text())):
        if "://" not in link["target"]:
            name, _, anchor = link["target"].partition("#")
            yield (page.parent / name if name else page), anchor


@every_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = [
        f"{path}#{anchor}"
        for path, anchor in links(page)
        if not path.exists() or (anchor and anchor not in anchors(path))
    ]
    assert broken == []


@every_page
def test_targets_of_make_exist(page: Path) -> None:
    known = set(TARGET.findall((REPOSITORY / "Makefile").read_text()))

    assert set(MAKE.findall(page.read_text())) - known == set()


def complaint(module: str, rest: str) -> str:
    """What is wrong with a command line; nothing where it could be typed."""
    if module not in PROGRAMS:
        return "" if find_spec(module) else f"no module {module}"
    command: Any = PROGRAMS[module]
    for word in rest.split():
        options = set(chain.from_iterable(each.opts for each in command.params)) | {"--help"}
        if word.startswith("--") and word.partition("=")[0] not in options:
            return f"{module} {command.name}: no {word}"
        commands = getattr(command, "commands", {})
        if commands and word in commands:
            command = commands[word]
        elif commands and word != "...":
            return f"{module}: no {word}"
    return ""


@every_page
def test_commands_and_their_options_exist(page: Path) -> None:
    typed = PYTHON.finditer(page.read_text().replace("\\\n", " "))
    found = [complaint(each["module"], each["rest"]) for each in typed]

    assert [each for each in found if each] == []


@every_page
def test_paths_exist(page: Path) -> None:
    named = {
        path.rstrip(".")
        for code in CODE.finditer(FENCE.sub("", page.read_text()))
        for path in PATH.findall(code["words"])
        if code["words"].startswith(path.split("/")[0])
    }
    gone = {each for each in named - MADE_WHEN_USED if not (REPOSITORY / each).exists()}
    assert gone == set()


@every_page
def test_settings_are_known(page: Path) -> None:
    deployed = "".join(
        path.read_text() for path in (DEPLOY / "compose").iterdir() if path.is_file()
    )
    known = set(SETTING.findall(REFERENCE.read_text() + deployed))

    assert set(SETTING.findall(page.read_text())) - known == set()


def test_the_states_that_are_told_are_those_of_the_ledger() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    states = {state for moves in TRANSITIONS.values() for state in moves}

    assert {state for state in states if f"`{state}`" not in page} == set()


def test_what_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`, three\n[a](#one-two-three) [b](gone.md) [c](#four)\n")

    assert anchors(page) == {"one-two-three"}
    assert [(path.name, anchor) for path, anchor in links(page)] == [
        ("page.md", "one-two-three"), ("gone.md", ""), ("page.md", "four")
    ]  # fmt: skip
    assert complaint("listener", " status --json") == ""
    assert complaint("listener", " bundles promote fistula 1.1.0") == ""
    assert complaint("listener", " purge") == "listener: no purge"
    assert complaint("trainer", " fit --fast") == "trainer fit: no --fast"
