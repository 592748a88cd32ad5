"""Results as a reader finds them in Orthanc's own viewer and explorer."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.viewers.browser import OrthancViewer, coloured, eventually, settled
from tests.viewers.pacs import AnsweredStudy
from tests.viewers.series import A_MAP_ON_THE_SCREEN, FISTULA_MAP, FISTULA_SUMMARY

Open = Callable[[str], OrthancViewer]

BLANK_SECONDS = 8


def test_a_map_scrolls_and_shows_its_colours(
    in_orthanc: Open, study: AnsweredStudy, picture: Callable[[str], None]
) -> None:
    viewer = in_orthanc(FISTULA_MAP)
    # Its caption and its colour bar are coloured on every image, the first is outside of the head.
    first = settled(viewer.image, A_MAP_ON_THE_SCREEN)

    viewer.scroll(study.images(FISTULA_MAP) // 2)

    assert eventually(lambda: coloured(viewer.image) > first + A_MAP_ON_THE_SCREEN, 10), (
        f"{coloured(viewer.image)} coloured pixels after {first} on another image"
    )
    picture("orthanc-overlay")


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Orthanc's viewer 2.8 shows images only: a report leaves it black",
)
def test_a_summary_can_be_read(in_orthanc: Open, study: AnsweredStudy) -> None:
    viewer = in_orthanc(FISTULA_SUMMARY)

    sentence = study.sentences(FISTULA_SUMMARY)[0]
    body = viewer.page.locator("body")
    assert eventually(lambda: sentence in body.inner_text(), BLANK_SECONDS)


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Orthanc's explorer 1.10.1 shows a report as a tree of closed tags, not as text",
)
def test_a_summary_can_be_read_in_the_explorer(page: Page, study: AnsweredStudy) -> None:
    page.goto(f"{study.url}/app/explorer.html#series?uuid={study.series(FISTULA_SUMMARY)}")

    sentence = study.sentences(FISTULA_SUMMARY)[0]
    body = page.locator("body")
    assert eventually(lambda: sentence in body.inner_text(), BLANK_SECONDS)
