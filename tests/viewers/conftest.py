"""A hospital whose PACS has viewers, and one synthetic study that both analyses answered in it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from deploy.local import INFECTION, PIXELS
from listener.selection import ANALYSES
from tests.listener.console.gate.conftest import served
from tests.system.conftest import Hospital, open_hospital, pytest_configure
from tests.viewers.browser import Ohif, OrthancViewer, chromium, eventually
from tests.viewers.ohif import ohif
from tests.viewers.pacs import AnsweredStudy
from tests.viewers.release import dist
from trainer.infection import draw_infection
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import NOBODY, study_of, write_axial, write_study
from trainer.phantom_t2 import render_t2

__all__ = ["pytest_configure"]  # the same rule: loopback only

PLUGINS = Path("/usr/share/orthanc/plugins")
NEEDED = ("libOrthancDicomWeb.so", "libOrthancWebViewer.so")

HEAD, SIGNS_OF_INFECTION = 2024, 7
"""Seeds of a head with signs for both analyses."""

WINDOW = {"width": 1200, "height": 740}
COARSER = 0b11111100
"""Of eight bits, those that a picture keeps: half the bytes, and no colour changes to the eye."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pictures", type=Path, help="folder that gets the pictures of docs/viewers.md"
    )


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """All of monro, and an Orthanc with DICOMweb and its own viewer."""
    missing = [name for name in NEEDED if not (PLUGINS / name).exists()]
    assert not missing, f"Orthanc lacks {missing}: `make system-tools` installs them"
    folder = tmp_path_factory.mktemp("hospital")
    viewers = {
        "Plugins": [str(PLUGINS / name) for name in NEEDED],
        "WebViewer": {"CachePath": str(folder / "viewer")},
    }
    with open_hospital(
        folder,
        orthanc_changes=viewers,
        MONRO_ANALYSES=json.dumps(ANALYSES),
        MONRO_WORKER_MAP_MODE="bundle",
    ) as place:
        yield place


@pytest.fixture(scope="session")
def study(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> AnsweredStudy:
    """A sagittal T1 and an axial T2 of one head, sent by the PACS, judged, and answered into it."""
    folder = tmp_path_factory.mktemp("phantom")
    head = render(draw_case(HEAD, positive=True, spectrum=OVERT))
    infected = draw_infection(SIGNS_OF_INFECTION, True, INFECTION, head=head.case)
    axial = folder / "study" / "t2"
    write_study(head, folder)
    write_axial(render_t2(infected, PIXELS), NOBODY, axial, study_of(head))
    hospital.send(sorted((folder / "study").rglob("*.dcm")))
    uid = study_of(head).uid
    hospital.await_delivery(uid, 240)
    return AnsweredStudy(hospital.orthanc, uid, tmp_path_factory.mktemp("pacs"))


@pytest.fixture(scope="session")
def ohif_url(hospital: Hospital) -> Iterator[str]:
    with served(ohif(dist(), hospital.orthanc.url)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    found = browser.new_page(viewport=WINDOW)  # type: ignore[arg-type]
    yield found
    found.close()


@pytest.fixture
def in_ohif(page: Page, ohif_url: str, study: AnsweredStudy) -> Ohif:
    """The study in OHIF, with all its series listed."""
    opened = Ohif(page, ohif_url, study.uid)
    assert eventually(lambda: len(opened.series(1)) >= len(study.descriptions()))
    return opened


@pytest.fixture
def in_orthanc(page: Page, study: AnsweredStudy) -> Callable[[str], OrthancViewer]:
    """Opens a series, by its description, in Orthanc's own viewer."""
    return lambda description: OrthancViewer(page, study.url, study.series(description))


@pytest.fixture
def picture(page: Page, pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Takes a picture for the documentation, where `--pictures` asks for it."""
    folder = pytestconfig.getoption("pictures")

    def take(name: str) -> None:
        if folder:
            path = folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=path)
            with Image.open(path) as taken:
                taken.convert("RGB").point(lambda value: value & COARSER).save(path, optimize=True)

    return take
