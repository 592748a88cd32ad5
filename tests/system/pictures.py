"""Pictures of the console for the documentation: `make console-pictures`.

Everything in them is invented: synthetic heads under invented names, judged by the demonstration
bundle and by a copy of it with other temperatures, which stands for one that was fitted anew.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from pydicom import Dataset

from deploy.stack import free_ports
from listener.console.gate.accounts import Accounts
from listener.labels import keep_labels, read_labels
from listener.rollout import registered
from tests.system.conftest import Hospital, edited_copy, open_hospital, pytest_configure
from tests.system.test_console import ARGUMENTS, CHROMIUM, DESKTOP, PASSWORD, TABLET, sign_in
from tests.system.test_rollout import DEMO
from tests.viewers.conftest import COARSER
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import NOBODY, write_slices
from worker.seal import METADATA, write_manifest

SIZES = {"desktop": DESKTOP, "tablet": TABLET}

VERSION = "0.3.0"
WARMER = (0.6, 1.5, 0.8, 1.3, 0.7)
"""Factors of the copy's temperatures: it is surer of some heads, and less sure of others."""

FINE_MM, COARSE_MM = 1.0, 2.4
FEW_SLICES = 20
PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Visitor:
    """An invented patient, and the head that is drawn for them."""

    name: str
    seed: int
    positive: bool
    spacing_mm: float = COARSE_MM


FIRST = Visitor("PHANTOM^ADA", 2024, True, FINE_MM)

OTHERS = tuple(
    Visitor(f"PHANTOM^{name}", seed, seed % 2 == 1)
    for seed, name in enumerate(
        ("BORIS", "CLARA", "DAVID", "EDITH", "FRANK", "GRETA", "HENRY", "IRENE", "JONAS", "KLARA"),
        start=1,
    )
)  # fmt: skip


def main(folder: Path) -> None:
    """Let studies be judged by two bundles, and take the pictures."""
    pytest_configure(None)  # type: ignore[arg-type]  # loopback only
    with tempfile.TemporaryDirectory() as place, opened(Path(place)) as (hospital, url):
        uids = [send(hospital, each, Path(place)) for each in (*OTHERS, FIRST)]
        for uid in uids:
            hospital.await_that(lambda uid=uid: judged(hospital, uid), PATIENCE_SECONDS, uid)
        refused = send(hospital, Visitor("PHANTOM^PAULA", 3, True), Path(place), FEW_SLICES)
        hospital.await_delivery(refused)
        label(hospital, uids)
        with signed_in(url) as page:
            take(page, folder, uids[-1])


@contextmanager
def opened(place: Path) -> Iterator[tuple[Hospital, str]]:
    """A hospital with a console, whose worker has the demonstration bundle and its copy."""
    bundles = place / "bundles"
    shutil.copytree(DEMO, bundles / "active")
    (port,) = free_ports(1)
    with open_hospital(
        place / "hospital",
        MONRO_CONSOLE_PORT=str(port),
        MONRO_WORKER_BUNDLES=json.dumps([str(bundles)]),
        MONRO_WORKER_LOOK_SECONDS="1",
        MONRO_WORKER_MAP_MODE="bundle",
        MONRO_SITE="university-hospital",
    ) as hospital:
        publish_copy(bundles)
        hospital.await_that(lambda: len(registered(hospital.stack.ledger)) == 2)
        Accounts(hospital.stack.ledger).add("olga", "operator", PASSWORD)
        yield hospital, f"http://127.0.0.1:{port}"


def publish_copy(bundles: Path) -> None:
    """The demonstration bundle with other temperatures, under a version of its own."""
    made = bundles.parent / VERSION
    shutil.copytree(DEMO, made)
    metadata = json.loads((made / METADATA).read_text())
    metadata["version"] = VERSION
    told = metadata["monro"]["temperatures"]
    metadata["monro"]["temperatures"] = [a * b for a, b in zip(told, WARMER, strict=True)]
    (made / METADATA).write_text(json.dumps(metadata))
    write_manifest(made)
    made.rename(bundles / VERSION)


def send(hospital: Hospital, who: Visitor, place: Path, slices: int | None = None) -> str:
    """A head under an invented name, all of it or its first slices; returns the study's UID."""

    def name(dataset: Dataset) -> None:
        dataset.PatientName, dataset.PatientID = who.name, f"PHANTOM-{who.seed:04d}"

    shown = render(draw_case(who.seed, positive=who.positive, spectrum=OVERT), who.spacing_mm)
    drawn = place / f"{who.name} {slices}"
    files: Sequence[Path] = write_slices(shown, NOBODY, drawn / "drawn")
    uid, paths = edited_copy(files[:slices], drawn / "sent", name)
    hospital.send(paths)
    return uid


def judged(hospital: Hospital, uid: str) -> bool:
    """Whether both bundles reported, and the PACS has all."""
    known: dict[str, Any] = hospital.stack.ledger.study(uid) or {}
    roles = {job["role"] for job in known.get("jobs", ()) if job["state"] == "REPORTED"}
    return roles == {"active", "shadow"} and hospital.delivered(uid)


def label(hospital: Hospital, uids: Sequence[str]) -> None:
    """What was drawn is what turned out to be true."""
    rows = (
        f"{uid},{'positive' if who.positive else 'negative'}"
        for uid, who in zip(uids, (*OTHERS, FIRST), strict=True)
    )
    table = "\n".join(("study_uid,label", *rows))
    keep_labels(hospital.stack.ledger, "fistula", read_labels(table), "olga")


@contextmanager
def signed_in(url: str) -> Iterator[Page]:
    """A browser without a screen, whose operator has signed in."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(base_url=url)
        sign_in(page)
        yield page
        browser.close()


def take(page: Page, folder: Path, study_uid: str) -> None:
    """Each page at each size; of a study from its answers on."""
    folder.mkdir(parents=True, exist_ok=True)
    page.goto("/bundles")
    comparison = page.get_by_role("link", name="Compare with the active bundle").get_attribute(
        "href"
    )
    pages = {
        "worklist": ("/", None),
        "study": (f"/studies/{study_uid}#answers", "#answers"),
        "comparison": (str(comparison), None),
        "bundles": ("/bundles", None),
    }
    for name, (path, top) in pages.items():
        for kind, size in SIZES.items():
            page.set_viewport_size(size)  # type: ignore[arg-type]
            page.goto("about:blank")  # or a fragment alone would load nothing
            answer = page.goto(path)
            assert answer is not None and answer.ok, (path, answer and answer.status)
            page.wait_for_load_state("networkidle")
            if top is not None:
                page.locator(top).evaluate("each => each.scrollIntoView({behavior: 'instant'})")
            shoot(page, folder / f"console-{name}-{kind}.png")


def shoot(page: Page, path: Path) -> None:
    """A picture in fewer bytes."""
    page.screenshot(path=path)
    with Image.open(path) as taken:
        taken.convert("RGB").point(lambda value: value & COARSER).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
