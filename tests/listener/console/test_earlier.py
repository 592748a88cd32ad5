"""What earlier revisions and shadows found can be looked at, and is never taken for the answer."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from listener.console.slices import LAYERS
from listener.rollout import promote
from tests.listener.console.conftest import BUNDLE, Browser, House, a_head
from tests.listener.console.test_pages import text_of

People = Callable[..., Browser]

SHADOW = replace(BUNDLE, version="2.0.0", weights_sha256="b" * 64)

Jobs = dict[tuple[int, str], str]
"""Revision and role -> job ID."""


@pytest.fixture
def revised(house: House) -> tuple[str, Jobs]:
    """A study of two revisions; a shadow judged both, the second one otherwise than the first."""
    house.ledger.register_bundle(SHADOW)
    study_uid, jobs = "", {}
    for revision in (1, 2):
        study_uid = house.receive(*a_head("DOE^JANE", "P-77", slices=2 + revision))
        house.plan()
        known: Any = house.ledger.study(study_uid)
        for job in known["jobs"]:
            if job["revision"] == revision:
                bundle = BUNDLE if job["role"] == "active" else SHADOW
                probability = 0.1 * revision + (0.5 if bundle is SHADOW else 0.0)
                house.answer(job["job_id"], probability, "undetermined", bundle)
                jobs[revision, job["role"]] = job["job_id"]
    assert len(jobs) == 4
    return study_uid, jobs


MARKS = {
    (1, "active"): ["superseded by revision 2"],
    (1, "shadow"): ["shadow: never sent", "superseded by revision 2"],
    (2, "active"): [],
    (2, "shadow"): ["shadow: never sent"],
}


@pytest.mark.parametrize("which", MARKS)
def test_each_job_shows_its_report_and_overlay_and_what_it_is(
    console: People, revised: tuple[str, Jobs], which: tuple[int, str]
) -> None:
    study_uid, jobs = revised
    vera, place = console("vera"), f"/studies/{study_uid}/jobs/{jobs[which]}"
    assert f'<a href="{place}"' in vera.get(f"/studies/{study_uid}")

    page = vera.get(place)
    told = text_of(page)
    probability = f"{10 * which[0] + (50 if which[1] == 'shadow' else 0)}.0 %"
    assert f"{probability} undetermined" in told
    assert "A finding of tests: suggested by <the> AI model." in told
    assert '<figure class="three">' in page
    assert f'href="{place}/slices"' in page
    for shown in (told, text_of(vera.get(f"{place}/slices"))):
        marked = "This is not the site's answer to this study." in shown
        assert marked is bool(MARKS[which])
        assert ("; ".join(MARKS[which]).capitalize() + ".") in shown


@pytest.mark.parametrize("which", MARKS)
def test_programs_are_told_the_same(
    console: People, revised: tuple[str, Jobs], which: tuple[int, str]
) -> None:
    study_uid, jobs = revised
    vera, place = console("vera"), f"/api/studies/{study_uid}/jobs/{jobs[which]}"

    job = vera.json(place)
    assert (job["revision"], job["role"], job["marks"]) == (*which, MARKS[which])
    listed = vera.json(f"/api/studies/{study_uid}")["jobs"]
    assert {each["job_id"]: each["marks"] for each in listed}[jobs[which]] == MARKS[which]
    assert vera.json(f"{place}/documents")[0]["title"] == "AI result summary"
    assert vera.json(f"{place}/slices")["count"] == 2
    for layer in LAYERS:
        assert vera.data(f"{place}/slices/1/{layer}.png").startswith(b"\x89PNG")


def test_a_job_whose_bundle_was_replaced_meanwhile_says_so(console: People, house: House) -> None:
    study_uid = house.receive(*a_head("DOE^JANE", "P-79"))
    (replaced,) = house.plan()
    house.ledger.register_bundle(SHADOW)
    promote(house.ledger, "fistula", SHADOW.edition, "ann")
    house.ledger.supersede_unwanted()
    (now,) = house.plan()
    house.answer(now, bundle=SHADOW)
    told = console("vera").json(f"/api/studies/{study_uid}")["jobs"]

    assert {each["job_id"]: each["marks"] for each in told} == {
        replaced: ["superseded within revision 1"],
        now: [],
    }


def test_the_answer_of_the_study_is_the_latest_active_one_only(
    console: People, revised: tuple[str, Jobs]
) -> None:
    study_uid, _ = revised
    page = text_of(console("vera").get(f"/studies/{study_uid}"))
    answers = page[page.index("Answers fistula") : page.index("What came in 7 instances")]

    assert "20.0 % undetermined" in answers
    assert not any(other in answers for other in ("10.0 % und", "60.0 % und", "70.0 % und"))


def test_looking_at_an_earlier_job_is_a_look_at_the_study(
    console: People, house: House, revised: tuple[str, Jobs]
) -> None:
    study_uid, jobs = revised
    console("vera").get(f"/studies/{study_uid}/jobs/{jobs[1, 'shadow']}")
    console("oskar").json(f"/api/studies/{study_uid}/jobs/{jobs[1, 'active']}")
    time.sleep(0.5)

    trail = (house.settings.spool / "audit" / "audit.log").read_text().splitlines()
    looks = [line for line in trail if study_uid in line and "110103" in line]
    assert [name in line for name, line in zip(("vera", "oskar"), looks, strict=True)] == [True] * 2


def test_a_job_is_shown_with_its_own_study_only(
    console: People, house: House, revised: tuple[str, Jobs]
) -> None:
    study_uid, jobs = revised
    other = house.receive(*a_head("ROE^RICHARD", "P-78"))
    vera = console("vera")

    for path in (
        f"/studies/{other}/jobs/{jobs[1, 'active']}",
        f"/api/studies/{other}/jobs/{jobs[1, 'active']}",
        f"/studies/{study_uid}/jobs/{'0' * 36}",
        f"/studies/1.2.3/jobs/{jobs[1, 'active']}",
    ):
        assert vera.status(path) == 404, path
