"""The console in a real browser: a study comes in, becomes a result, is looked at and sent again.

MONRO_SCREENSHOTS names a folder that pictures of the pages are put into.
"""

import os
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from pydicom import Dataset
from pynetdicom import AllStoragePresentationContexts
from sqlalchemy import insert, select, update

from deploy.stack import free_ports
from listener.confirmation import STUDY_ROOT_FIND
from listener.console.gate.accounts import Accounts
from listener.console.show import HERE
from listener.entries import BundleRow
from listener.labels import Label, keep_labels
from listener.tables import jobs
from tests.listener.archive import Archive
from tests.system.conftest import Hospital, edited_copy, open_hospital

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

DESKTOP = {"width": 1440, "height": 900}
TABLET = {"width": 820, "height": 1180}

PASSWORD = "seven lanterns over the harbour"
NAME = "CONSOLE^CARLA"

Ward = tuple[Hospital, str]

REJECTS = 0xC000


@pytest.fixture(scope="module")
def picky() -> Iterator[Archive]:
    """Somewhere else that results go to; it rejects all of them until it is told otherwise."""
    (port,) = free_ports(1)
    takes = tuple(str(each.abstract_syntax) for each in AllStoragePresentationContexts)
    with Archive(port, (STUDY_ROOT_FIND,), takes, REJECTS).open() as archive:
        yield archive


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, picky: Archive) -> Iterator[Ward]:
    """A hospital with a console."""
    (console_port,) = free_ports(1)
    other = {"name": "picky", "ae_title": "PACS", "host": "127.0.0.1", "port": picky.port}
    with open_hospital(
        tmp_path_factory.mktemp("ward"), [other], MONRO_CONSOLE_PORT=str(console_port)
    ) as place:
        Accounts(place.stack.ledger).add("olga", "operator", PASSWORD)
        yield place, f"http://127.0.0.1:{console_port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, ward: Ward) -> Iterator[Page]:
    """A page of somebody who has signed in; whatever a script complains of fails the test."""
    context = browser.new_context(base_url=ward[1], viewport=DESKTOP)  # type: ignore[arg-type]
    found = context.new_page()
    complaints: list[str] = []
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None,
    )
    sign_in(found)
    yield found
    context.close()
    assert complaints == []


def sign_in(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Name").fill("olga")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Worklist")).to_be_visible()


def with_contrast(dataset: Dataset) -> None:
    dataset.ContrastBolusAgent = "GADOBUTROL"
    dataset.PatientName, dataset.PatientID = NAME, "C-4711"


@pytest.fixture(scope="module")
def study(ward: Ward, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A head with contrast that was sent, and is answered."""
    hospital, _ = ward
    uid, files = edited_copy(
        sorted((shared_data / "philips_mprage_sag").glob("*.dcm")),
        tmp_path_factory.mktemp("study"),
        with_contrast,
    )
    hospital.send(files)
    return uid


def shoot(page: Page, name: str, *, full: bool = False) -> None:
    """Keep pictures of a page, as a desktop and as a tablet show it."""
    folder = os.environ.get("MONRO_SCREENSHOTS")
    if folder is None:
        return
    for kind, size in (("desktop", DESKTOP), ("tablet", TABLET)):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.screenshot(path=Path(folder) / f"{name}-{kind}.png", full_page=full)
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]


def test_a_study_becomes_a_result_while_somebody_watches(page: Page, study: str) -> None:
    page.goto(f"/?uid={study}")
    row = page.get_by_role("row").filter(has_text=study)
    expect(row).to_be_visible(timeout=60_000)
    expect(row).to_contain_text("CONSOLE, CARLA")
    page.evaluate("window.untouched = true")

    expect(row).to_contain_text("fistula: running", timeout=90_000)
    assert page.evaluate("window.untouched"), "the page was loaded anew"
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("CONSOLE, CARLA")
    shoot(page, "study-running")
    page.evaluate("window.untouched = true")
    expect(page.locator("#answers + article .state").first).to_have_text(
        "reported", timeout=180_000
    )

    expect(page.locator(".big")).to_contain_text("%")
    expect(page.locator("figure.three svg")).to_have_count(4)
    assert page.evaluate("window.untouched"), "the page was loaded anew"
    shoot(page, "study", full=True)


def test_the_overlay_scrolls_by_keys_wheel_and_slider(page: Page, study: str) -> None:
    page.goto(f"/studies/{study}")
    page.get_by_role("link", name=re.compile("Look at all")).click()
    label = page.locator("#label")
    viewer = page.locator("#viewer")
    first = int(page.locator("#slice").input_value())
    expect(viewer).to_have_attribute("data-shown", str(first))
    expect(page.locator("canvas")).to_have_count(2)
    shoot(page, "viewer")

    viewer.focus()
    page.keyboard.press("ArrowDown")
    expect(label).to_contain_text(f"Slice {first + 1} of")
    page.keyboard.press("PageUp")
    expect(label).to_contain_text(f"Slice {first - 9} of")
    page.locator("#overlay").hover()
    page.mouse.wheel(0, 120)
    expect(label).to_contain_text(f"Slice {first - 6} of")
    page.locator("#slice").focus()
    page.keyboard.press("Home")
    expect(label).to_contain_text("Slice 1 of")
    page.locator("#slice").fill(str(first))
    expect(viewer).to_have_attribute("data-shown", str(first))

    def colourful() -> int:
        """Pixels of the overlay that are not grey."""
        found: int = page.evaluate(
            """() => { const canvas = document.querySelector("#overlay canvas");
            const copy = new OffscreenCanvas(canvas.width, canvas.height);
            const pen = copy.getContext("2d", { willReadFrequently: true });
            pen.drawImage(canvas, 0, 0);
            const data = pen.getImageData(0, 0, copy.width, copy.height).data;
            let count = 0;
            for (let at = 0; at < data.length; at += 4) if (data[at] !== data[at + 2]) count += 1;
            return count; }"""
        )
        return found

    assert colourful() > 100
    page.locator("#opacity").fill("0")
    page.wait_for_timeout(200)
    assert colourful() == 0
    page.get_by_label("plain image beside").uncheck()
    expect(page.locator("#plain")).to_be_hidden()


def test_without_script_slices_are_pages(browser: Browser, ward: Ward, study: str) -> None:
    context = browser.new_context(
        base_url=ward[1],
        java_script_enabled=False,
        viewport=DESKTOP,  # type: ignore[arg-type]
    )
    page = context.new_page()
    sign_in(page)
    page.goto(f"/studies/{study}")
    page.get_by_role("link", name=re.compile("Look at all")).click()
    shown = page.locator("#label")
    first = int(re.findall(r"Slice (\d+)", shown.inner_text())[0])
    page.get_by_role("link", name="Next").click()
    expect(shown).to_contain_text(f"Slice {first + 1} of")
    expect(page.locator("#overlay image")).to_have_count(2)
    context.close()


def test_a_delivery_that_was_rejected_is_sent_once_somebody_retries_it(
    page: Page, study: str, ward: Ward, picky: Archive
) -> None:
    states = page.get_by_role("row", name=re.compile("^picky ")).locator("td:nth-child(3)")
    ward[0].await_that(lambda: all_that_goes_to_picky_is_parked(ward[0], study), 180, study)
    page.goto(f"/studies/{study}")
    expect(states.filter(has_text="parked")).to_have_count(1)
    picky.status = 0x0000
    page.wait_for_timeout(4000)  # several rounds: nothing is sent by itself
    assert picky.stored == []

    page.get_by_role("button", name="Retry deliveries to picky").click()
    expect(page.locator("#history ~ .wide")).to_contain_text("retry by operator")
    expect(page.locator("#history ~ .wide")).to_contain_text("deliveries to picky")
    expect(states).to_have_text(["confirmed"] * states.count(), timeout=60_000)
    assert set(picky.stored) == set(picky.held) != set()
    audit = (ward[0].stack.folder / "spool" / "audit" / "audit.log").read_text()
    assert 'UserID="olga"' in audit


def all_that_goes_to_picky_is_parked(hospital: Hospital, study_uid: str) -> bool:
    """Everything was rejected, or waits behind what was."""
    return "PARKED" in of_picky(hospital, study_uid) and not hospital.stack.ledger.due("picky")


def of_picky(hospital: Hospital, study_uid: str) -> set[str]:
    known: dict[str, Any] = hospital.stack.ledger.study(study_uid) or {}
    rows = known.get("deliveries", ())
    return {row["state"] for row in rows if row["destination"] == "picky"}


LOOK = "document.dispatchEvent(new Event('visibilitychange'))"
"""What a browser tells a page that comes into view: it is read again at once."""

MARK = """document.querySelector('[data-refresh] h2, [data-refresh] table')
    .setAttribute('data-before', '')"""
"""What is replaced has it no more."""


@pytest.fixture
def stray(browser: Browser, ward: Ward) -> Iterator[Page]:
    """A signed-in page whose browser may complain, such as of a listener that is away."""
    context = browser.new_context(base_url=ward[1], viewport=DESKTOP)  # type: ignore[arg-type]
    found = context.new_page()
    sign_in(found)
    yield found
    context.close()


CONTROLS: dict[str, Callable[[Page], Locator]] = {
    "button": lambda page: page.get_by_role("button", name=re.compile("Retry everything")),
    "summary": lambda page: page.locator("summary", has_text="Where it comes from").first,
    "link within details": lambda page: page.get_by_role("link", name="Result files").first,
    "table that scrolls": lambda page: page.locator(".wide").nth(1),
    "button of a destination": lambda page: page.locator("#retry-picky"),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_focus_and_open_details_survive_a_refresh(page: Page, answered: str, control: str) -> None:
    page.goto(f"/studies/{answered}")
    origin = page.locator("details", has=page.locator("summary", has_text="Where it comes")).first
    origin.locator("summary").click()
    found = CONTROLS[control](page)
    found.evaluate("each => { if (each.matches('.wide')) each.tabIndex = 0; each.focus(); }")
    expect(found).to_be_focused()
    page.evaluate(MARK)

    page.evaluate(LOOK)
    expect(page.locator("[data-before]")).to_have_count(0)
    if control != "table that scrolls":  # browsers make it one that takes focus where it scrolls
        expect(CONTROLS[control](page)).to_be_focused()
    assert page.evaluate("document.activeElement !== document.body"), "focus fell to the top"
    expect(origin).to_have_attribute("open", "")


def test_a_study_that_is_over_is_still_read_again(page: Page, answered: str, ward: Ward) -> None:
    page.goto(f"/studies/{answered}")
    ward[0].await_that(lambda: of_picky(ward[0], answered) == {"CONFIRMED"}, 60, answered)
    said = page.locator("#live-said")
    with ward[0].stack.ledger.writing() as connection:
        connection.execute(
            update(jobs).where(jobs.c.study_uid == answered, jobs.c.role == "active")
            .values(state="FAILED")
        )  # fmt: skip
    try:
        page.evaluate(LOOK)
        expect(page.locator("#answers + article .state").first).to_have_text("failed")
        expect(said).to_contain_text("fistula: failed")
    finally:
        with ward[0].stack.ledger.writing() as connection:
            connection.execute(
                update(jobs).where(jobs.c.study_uid == answered, jobs.c.role == "active")
                .values(state="REPORTED")
            )  # fmt: skip


def test_a_page_that_is_not_answered_says_since_when(stray: Page, answered: str) -> None:
    stray.goto("/")
    expect(stray.locator("#live-since")).to_have_text(re.compile(r"As of \d\d:\d\d\."))
    said = stray.get_by_role("status")
    stray.context.set_offline(True)
    stray.evaluate(LOOK)
    expect(said).to_have_text(re.compile(r"Not answered since \d\d:\d\d: .* may be old"))
    expect(stray.get_by_role("row").filter(has_text=answered)).to_be_visible()

    stray.context.set_offline(False)
    stray.evaluate(LOOK)
    expect(said).to_have_text("Answered again.")
    stray.route("**/fragment/**", lambda route: route.fulfill(status=503))
    stray.evaluate(LOOK)
    expect(said).to_contain_text("Not answered since")


def test_updates_can_be_paused(page: Page, answered: str) -> None:
    page.goto(f"/studies/{answered}")
    page.get_by_role("button", name="Pause updates").click()
    expect(page.locator("#live-since")).to_contain_text("Paused; as of")
    page.evaluate(MARK)
    page.evaluate(LOOK)
    page.wait_for_timeout(1000)
    expect(page.locator("[data-before]")).to_have_count(1)

    page.get_by_role("button", name="Go on with updates").click()
    expect(page.locator("[data-before]")).to_have_count(0)


@pytest.mark.parametrize("path", ["/rules", "/studies/{}", "/studies/{}/audit"])
def test_nothing_stays_in_view_once_the_session_is_over(
    stray: Page, answered: str, path: str
) -> None:
    stray.goto(path.format(answered))
    stray.context.clear_cookies()
    stray.evaluate(LOOK)
    expect(stray).to_have_url(re.compile(r"/sign-in\?next="))
    expect(stray.get_by_role("button", name="Sign in")).to_be_visible()
    assert "CARLA" not in stray.content()


def test_a_patient_is_searched_for_and_never_logged(page: Page, study: str, ward: Ward) -> None:
    page.goto("/")
    page.get_by_label("Patient name or ID").fill("carla")
    page.get_by_role("button", name="Search").click()

    expect(page.get_by_role("row").filter(has_text=study)).to_be_visible()
    assert "carla" not in page.url.lower()
    log = ward[0].stack.log("listener").read_text()
    assert "CARLA" not in log.upper()


SHADOW = BundleRow("fistula", "fistula-demo", "9.9.9", "9" * 64)


@pytest.fixture(scope="module")
def answered(ward: Ward, study: str) -> str:
    """A study with an answer, and with what a shadow says beside it, by the ledger's word only."""
    ledger = ward[0].stack.ledger
    ward[0].await_that(lambda: ward[0].job(study).get("state") == "REPORTED", 180, study)
    ledger.register_bundle(SHADOW)
    with ledger.writing() as connection:
        (said,) = connection.execute(select(jobs).where(jobs.c.study_uid == study)).mappings()
        beside = {
            "job_id": "9" * 8 + said["job_id"][8:], "role": "shadow", "band": "undetermined",
            "weights_sha256": SHADOW.weights_sha256, "bundle_version": SHADOW.version,
            "probability": said["probability"] / 2,
        }  # fmt: skip
        connection.execute(insert(jobs).values({**said, **beside}))
    keep_labels(ledger, "fistula", [Label(study, True)], "olga")
    return study


def bundle_of(page: Page, version: str) -> Locator:
    page.goto("/bundles")
    return page.get_by_role("article").filter(has_text=version)


def go_to_comparison(page: Page, _study: str) -> None:
    bundle_of(page, SHADOW.version).get_by_role("link", name="Compare").click()
    expect(page.get_by_role("heading", name="Paired scores")).to_be_visible()


def go_to_report(page: Page, _study: str) -> None:
    page.goto("/bundles")
    page.get_by_role("link", name="Evaluation report").first.click()
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", level=1)).to_be_visible()
    assert report.locator("img").first.evaluate("each => each.naturalWidth") > 100


def go_to_promotion(page: Page, _study: str) -> None:
    shadow = bundle_of(page, SHADOW.version)
    shadow.get_by_role("button", name="Make it the active bundle").click()
    expect(page.get_by_role("alert")).to_contain_text("No living worker holds version 9.9.9")


def go_to_job(page: Page, study: str) -> None:
    page.goto(f"/studies/{study}")
    page.get_by_role("link", name="1: fistula, shadow").click()
    expect(page.locator(".marked")).to_contain_text("Shadow: never sent.")


def go_to_slices(page: Page, study: str) -> None:
    page.goto(f"/studies/{study}")
    page.get_by_role("link", name=re.compile("Look at all")).click()
    expect(page.locator("canvas")).to_have_count(2)


def go_to_files(page: Page, study: str) -> None:
    page.goto(f"/studies/{study}")
    page.get_by_text("Where it comes from").click()
    page.get_by_role("link", name="Result files").click()
    expect(page.get_by_role("heading", name="Result files")).to_be_visible()


def go_to_search(page: Page, study: str) -> None:
    page.goto("/")
    page.get_by_label("Patient name or ID").fill("carla")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("row").filter(has_text=study)).to_be_visible()


def at(path: str) -> Callable[[Page, str], None]:
    return lambda page, study: page.goto(path.format(study)) and None


PLACES: dict[str, Callable[[Page, str], None]] = {
    "worklist": at("/"), "search": go_to_search, "study": at("/studies/{}"), "job": go_to_job,
    "slices": go_to_slices, "files": go_to_files, "trail": at("/studies/{}/audit"),
    "queue": at("/queue"), "bundles": at("/bundles"), "report": go_to_report,
    "comparison": go_to_comparison, "promotion": go_to_promotion, "rules": at("/rules"),
    "rules-of-a-study": at("/rules?study={}"), "settings": at("/settings"),
    "health": at("/health"), "api": at("/api"), "password": at("/password"),
}  # fmt: skip
"""Every page that somebody who has signed in can come to, and the way there."""


@pytest.mark.parametrize("place", PLACES)
def test_pages_are_told_well_by_a_screen_reader(page: Page, answered: str, place: str) -> None:
    """One main heading, headings in order, names for all that can be used, captions."""
    PLACES[place](page, answered)

    levels = [int(tag[1]) for tag in page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((each) => each.tagName)"
    )]  # fmt: skip
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    for role in ("link", "button", "textbox", "searchbox", "combobox", "slider", "checkbox", "img"):
        for found in page.get_by_role(role).all():  # type: ignore[arg-type]
            snapshot = found.aria_snapshot()
            assert re.match(rf"- '?{role} \"", snapshot), (role, snapshot)
    assert page.evaluate(
        "[...document.querySelectorAll('table:not(.card table)')].every((each) => each.caption && "
        "[...each.querySelectorAll('th')].every((head) => head.scope))"
    )
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for size in (DESKTOP, TABLET):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        ), size
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    shoot(page, place)


def test_every_template_of_a_page_is_among_them() -> None:
    """One that is added must be looked at as well; these are no pages, or no page of their own."""
    parts = {"base", "parts", "told", "sign_in", "answer", "problem"}
    other_names = {
        "evaluation": "report", "viewer": "slices", "promote": "promotion", "results": "files",
    }  # fmt: skip
    pages = {path.stem for path in (HERE / "templates").glob("*.html")} - parts
    pages = {each for each in pages if not each.endswith(("_body", "_rows"))}

    assert {other_names.get(each, each) for each in pages} <= PLACES.keys()


def test_the_sign_in_page_is_of_one_piece_with_the_others(browser: Browser, ward: Ward) -> None:
    context = browser.new_context(base_url=ward[1], viewport=DESKTOP)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto("/")

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 18, 20)"
    expect(page.get_by_role("textbox", name="Name")).to_be_visible()
    shoot(page, "sign-in")
    context.close()


def test_a_page_prints_light(page: Page, study: str) -> None:
    page.goto(f"/studies/{study}")
    page.emulate_media(media="print")

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.get_by_role("navigation", name="Pages")).to_be_hidden()
    expect(page.get_by_role("note")).to_contain_text("Research use only")
    shoot(page, "print", full=True)
