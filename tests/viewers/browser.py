"""A browser without a screen, and what the tests read from the two viewers in it."""

import base64
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
# WebGL without a GPU, and nothing that a browser does by itself on a network.
ARGUMENTS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

PATIENCE_SECONDS = 60
"""A rasterizer in software on a machine that others use."""

SATURATED = 40
"""Of 255, between the strongest and the weakest of red, green and blue: no grey, nor its rim."""

VISIBLE = 24
"""Of 255: brighter than the noise that a phantom has outside of its head."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; nothing is downloaded."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


DRAWN = """shown => {
    if (shown.toDataURL) return shown.toDataURL();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [shown.naturalWidth, shown.naturalHeight];
    canvas.getContext("2d").drawImage(shown, 0, 0);
    return canvas.toDataURL();
}"""


def pixels(shown: Locator) -> np.ndarray:
    """What a viewer drew on a canvas or as an image, without buttons around it: (Y, X, RGB)."""
    encoded = shown.evaluate(DRAWN).partition(",")[2]
    image = Image.open(BytesIO(base64.b64decode(encoded))).convert("RGB")
    return np.asarray(image).astype(int)


def coloured(canvas: Locator) -> int:
    """How many pixels have a colour."""
    return int((np.ptp(pixels(canvas), axis=-1) > SATURATED).sum())


def settled(canvas: Locator, least: int) -> int:
    """How many pixels have a colour, once they are at least so many and no longer change."""
    seen = [0]

    def same_again() -> bool:
        seen.append(coloured(canvas))
        return seen[-1] == seen[-2] >= least

    assert eventually(same_again), f"{seen[-1]} coloured pixels, not {least}"
    return seen[-1]


def visible(canvas: Locator) -> int:
    """How many pixels are not black."""
    return int((pixels(canvas).max(axis=-1) > VISIBLE).sum())


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    return True


class Ohif:
    """A study in OHIF."""

    def __init__(self, page: Page, url: str, study_uid: str) -> None:
        """Open the study, and leave the tour that OHIF offers to newcomers."""
        self.page = page
        page.set_default_timeout(1000 * PATIENCE_SECONDS)
        page.goto(f"{url}/viewer?StudyInstanceUIDs={study_uid}", wait_until="domcontentloaded")
        page.get_by_text("Skip all").first.click()
        self.pane = page.locator('[data-cy="viewport-pane"]')
        self.image = self.pane.locator("canvas.cornerstone-canvas")
        self._thumbnails = page.locator('[data-cy^="study-browser-thumbnail"]')

    def series(self, expected: int) -> list[str]:
        """Descriptions of all series, once as many as expected are listed."""
        eventually(lambda: self._thumbnails.count() >= expected)
        return [each.inner_text().splitlines()[1] for each in self._thumbnails.all()]

    def thumbnail(self, description: str) -> Locator:
        """The small picture of a series, once it is there and has loaded."""
        image = self._thumbnails.filter(has_text=description).first.locator("img")
        assert eventually(lambda: image.count() == 1), f"{description} has no thumbnail"
        loaded = "image => image.complete && image.naturalWidth > 0"
        assert eventually(lambda: image.evaluate(loaded)), f"{description}: it does not load"
        return image

    def open(self, description: str) -> None:
        self._thumbnails.filter(has_text=description).first.dblclick()

    def shows(self, text: str, seconds: float = PATIENCE_SECONDS) -> bool:
        """Whether the pane comes to hold a text."""
        return eventually(lambda: text in self.text(), seconds)

    def text(self) -> str:
        """What can be read in the pane, with plain spaces."""
        return self.pane.inner_text().replace("\N{NO-BREAK SPACE}", " ")

    def scroll_to(self, instance_number: int) -> None:
        """Turn the wheel until an image is there."""
        self.pane.hover()
        wanted = f"I:{instance_number} ("
        for _step in range(int(self._slice()[1])):
            if wanted in self.text():
                break
            before = self._slice()
            self.page.mouse.wheel(0, 100)
            eventually(lambda before=before: self._slice() != before, 5)  # type: ignore[misc]
        assert self.shows(wanted, 5), self.text()

    def _slice(self) -> tuple[str, str]:
        """Which of how many images."""
        counted = r"\((\d+)/(\d+)\)"
        assert eventually(lambda: bool(re.search(counted, self.text())))
        found = re.search(counted, self.text())
        assert found
        return found[1], found[2]


class OhifForDrawing:
    """A study in OHIF's mode for segmentations."""

    def __init__(self, page: Page, url: str, study_uid: str) -> None:
        self.page = page
        page.set_default_timeout(1000 * PATIENCE_SECONDS)
        page.goto(
            f"{url}/segmentation?StudyInstanceUIDs={study_uid}", wait_until="domcontentloaded"
        )
        # The first of several panes is the one that works.
        self.image = page.locator('[data-cy="viewport-pane"] canvas.cornerstone-canvas').first

    def open_segmentation(self, description: str) -> None:
        """Lay a segmentation on its slices, to be mended."""
        listed = self.page.locator('[data-cy^="study-browser-thumbnail"]')
        listed.filter(has_text=description).first.dblclick()
        self.page.get_by_role("button", name="Yes").click()
        self.page.locator('[data-cy="data-row"]').first.wait_for()
        assert eventually(lambda: coloured(self.image) > 0), "no region is shown"

    def brush(self) -> None:
        """A short stroke through the middle of the slice, in the first segment."""
        self.page.locator('[data-cy="Brush-btn"]').click()
        box = self.image.bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + box["width"] / 20, y, steps=10)
        self.page.mouse.up()

    def save_segmentation(self) -> None:
        """Export it as DICOM SEG into the archive: a new series of the study."""
        self.page.locator('[data-cy="segmentation-collapsed-more-btn-Labelmap"]').click()
        entries = self.page.get_by_role("menuitem")
        entries.filter(has_text="Export").hover()
        entries.filter(has_text="DICOM SEG").click()
        save = self.page.get_by_role("dialog").get_by_role("button", name="Save")
        with self.page.expect_response(lambda answer: answer.request.method == "POST") as stored:
            save.click()
        assert stored.value.ok, f"the archive answered {stored.value.status}"


class OrthancViewer:
    """A series in Orthanc's own viewer."""

    def __init__(self, page: Page, url: str, series: str) -> None:
        """Open a series by Orthanc's name for it."""
        self.page = page
        page.set_default_timeout(1000 * PATIENCE_SECONDS)
        page.goto(f"{url}/web-viewer/app/viewer.html?series={series}")
        self.image = page.locator("#dicomImage canvas")

    def scroll(self, steps: int) -> None:
        self.image.hover()
        for _step in range(steps):
            self.page.mouse.wheel(0, 100)
            time.sleep(0.05)
