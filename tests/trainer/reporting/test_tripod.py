"""The checklist is complete, and points at sections that are there."""

import re
from importlib import resources

from trainer.reporting.tripod import ITEMS, answered
from trainer.reporting.wording import WORDING


def test_all_27_items_in_52_parts_are_there_once():
    numbers = [item.number for item in ITEMS]

    assert len(set(numbers)) == len(numbers) == 52
    assert {int(re.sub(r"\D", "", number)) for number in numbers} == set(range(1, 28))


def test_a_frozen_bundle_answers_otherwise_than_a_development():
    inside = {each.number: each.answer for each in answered(False, WORDING["fistula"])}
    outside = {each.number: each.answer for each in answered(True, WORDING["fistula"])}

    assert inside["12f"] == "yes"
    assert outside["12f"] == "not applicable"
    assert inside.keys() == outside.keys()


def test_sections_named_are_sections_of_the_page():
    folder = resources.files("trainer.reporting")
    page = "".join(folder.joinpath(each).read_text() for each in ("report.html", "judgement.html"))
    headings = set(re.findall(r"<h2[^>]*>([^<]+)</h2>", page)) | {"Title", "Flow"}

    for item in ITEMS:
        if item.answer in {"yes", "partly"}:
            assert any(heading in item.where for heading in headings) or item.number in {
                "12e",
                "21",
                "22",
                "18f",
            }, item.number


def test_no_analysis_is_answered_in_words_of_the_other():
    told = {name: str(answered(False, words)) for name, words in WORDING.items()}

    assert "lumbar puncture" in told["infection"]
    assert not any(word in told["infection"] for word in ("yelogra", "Bern", "{"))
    assert "myelogram" in told["fistula"]
    assert "lumbar" not in told["fistula"]
