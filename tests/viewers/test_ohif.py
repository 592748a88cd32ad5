"""Results as a reader finds them in OHIF."""

from collections.abc import Callable

import pytest

from tests.viewers.browser import Ohif, coloured, eventually, settled, visible
from tests.viewers.pacs import AnsweredStudy
from tests.viewers.series import (
    A_MAP_ON_THE_SCREEN,
    A_REGION_ON_THE_SCREEN,
    A_THUMBNAIL,
    COLOURS_OF_A_THUMBNAIL,
    FISTULA_MAP,
    FISTULA_REPORT,
    FISTULA_SUMMARY,
    INFECTION_MAP,
    INFECTION_REGIONS,
    INFECTION_REPORT,
    INFECTION_SUMMARY,
    RESULTS,
)

Picture = Callable[[str], None]

BLANK_SECONDS = 8
"""How long to look for what we know does not come."""


def test_every_series_is_listed_under_its_description(in_ohif: Ohif, study: AnsweredStudy) -> None:
    listed = in_ohif.series(len(study.descriptions()))

    assert sorted(listed) == study.descriptions()
    assert set(RESULTS) < set(listed)


def test_every_series_of_images_has_a_thumbnail_that_shows_it(
    in_ohif: Ohif, study: AnsweredStudy
) -> None:
    for series in study.image_series():
        shown = in_ohif.thumbnail(series)
        assert visible(shown) > A_THUMBNAIL, f"{series}: its thumbnail is black"
        is_overlay = series in (FISTULA_MAP, INFECTION_MAP)
        assert (coloured(shown) > COLOURS_OF_A_THUMBNAIL) is is_overlay, (
            f"{series}: {coloured(shown)} coloured pixels in its thumbnail"
        )


@pytest.mark.parametrize(
    ("summary", "name"), [(FISTULA_SUMMARY, "ohif-summary"), (INFECTION_SUMMARY, "")]
)
def test_every_sentence_of_a_summary_can_be_read(
    in_ohif: Ohif, study: AnsweredStudy, picture: Picture, summary: str, name: str
) -> None:
    in_ohif.open(summary)

    assert in_ohif.shows("1.2. Findings")
    read = in_ohif.text()
    sentences = study.sentences(summary)
    assert [sentence for sentence in sentences if sentence not in read] == []
    assert any("AI-estimated probability" in sentence for sentence in sentences)
    assert any("Research use only" in sentence for sentence in sentences)
    if name:
        picture(name)


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="OHIF 3.13.2 does not wrap items named Finding (121071, DCM): longer sentences run out "
    "of the pane, and the reader has to scroll to the right",
)
def test_no_sentence_of_a_summary_runs_out_of_the_pane(in_ohif: Ohif) -> None:
    in_ohif.open(FISTULA_SUMMARY)
    assert in_ohif.shows("1.2. Findings")

    beyond = "pane => Math.max(...[...pane.querySelectorAll('*')].map(e => e.scrollWidth))"
    assert in_ohif.pane.evaluate(beyond) <= in_ohif.pane.evaluate("pane => pane.clientWidth")


@pytest.mark.parametrize(
    ("overlay", "name"),
    [(FISTULA_MAP, "ohif-overlay"), (INFECTION_MAP, "ohif-infection")],
    ids=["fistula", "infection"],
)
def test_a_map_scrolls_and_shows_its_colours(
    in_ohif: Ohif, study: AnsweredStudy, picture: Picture, overlay: str, name: str
) -> None:
    in_ohif.open(overlay)
    assert in_ohif.shows(overlay)
    assert in_ohif.shows(f"(1/{study.images(overlay)})")
    in_ohif.page.locator('[data-cy="cine-player-close"]').click()
    # Its caption and its colour bar are coloured on every image, the first is outside of the head.
    first = settled(in_ohif.image, A_MAP_ON_THE_SCREEN)

    in_ohif.scroll_to(study.most_telling(overlay))

    assert eventually(lambda: coloured(in_ohif.image) > first + A_MAP_ON_THE_SCREEN, 10), (
        f"{coloured(in_ohif.image)} coloured pixels after {first} on another image"
    )
    picture(name)


def test_proposed_regions_lie_on_their_slices_and_can_be_loaded(
    in_ohif: Ohif, picture: Picture
) -> None:
    in_ohif.open(INFECTION_REGIONS)
    assert in_ohif.shows("Do you want to open this Segmentation?")
    assert eventually(lambda: visible(in_ohif.image) > 10 * A_MAP_ON_THE_SCREEN)

    in_ohif.page.get_by_role("button", name="Yes").click()

    in_ohif.page.locator('[data-cy="panelSegmentation-btn"]').click()
    for region in ("Ventricular system", "Sub-lentiform parenchyma"):
        in_ohif.page.get_by_text(region).first.wait_for()
    assert visible(in_ohif.image) > 10 * A_MAP_ON_THE_SCREEN, "the anatomy is gone"
    assert coloured(in_ohif.image) > A_REGION_ON_THE_SCREEN
    picture("ohif-regions")


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="OHIF 3.13.2 leaves the pane blank for a TID 1500 report without coordinates: it reads "
    "coords[0].ReferencedSOPSequence of a measurement that has none",
)
@pytest.mark.parametrize("report", [FISTULA_REPORT, INFECTION_REPORT])
def test_a_measurement_report_can_be_read(in_ohif: Ohif, report: str) -> None:
    in_ohif.open(report)

    assert in_ohif.shows("Probability", BLANK_SECONDS)


def test_a_measurement_report_does_not_spoil_what_is_opened_next(in_ohif: Ohif) -> None:
    in_ohif.open(FISTULA_REPORT)
    in_ohif.page.wait_for_timeout(1000 * BLANK_SECONDS)

    in_ohif.open(FISTULA_MAP)

    assert in_ohif.shows(FISTULA_MAP)
    assert eventually(lambda: coloured(in_ohif.image) > A_MAP_ON_THE_SCREEN)
