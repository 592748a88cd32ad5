"""The page stands by itself, says what it must, and has its numbers beside it."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from trainer.reporting.page import Sheet, as_csv, shown
from trainer.reporting.report import write_report
from trainer.statistics import Interval

CHROMIUM = shutil.which("chromium")


class Addresses(HTMLParser):
    """Everything that a browser would fetch or run."""

    def __init__(self, page):
        super().__init__()
        self.found, self.tags, self.ids = [], set(), set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        self.ids.add(given.get("id"))
        self.found += [given[name] for name in ("src", "href", "srcset", "action") if name in given]


@pytest.fixture(scope="session")
def page(report):
    return (report / "report.html").read_text()


@pytest.fixture
def external_page(tmp_path, external, monkeypatch):
    # Figures are composed and not drawn: only the words matter here.
    monkeypatch.setattr("trainer.reporting.figures.png", lambda figure: bytes(24))
    return write_report(tmp_path, external).read_text()


def table(report, name):
    with (report / "tables" / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def words(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))


def test_the_page_needs_nothing_but_itself(page):
    addresses = Addresses(page)

    assert not addresses.tags & {"script", "link", "iframe", "object", "embed"}
    assert all(each.startswith(("data:image/png;base64,", "#")) for each in addresses.found)
    assert not re.search(r"url\(|@import", page)


def test_every_entry_of_the_contents_leads_somewhere(page):
    addresses = Addresses(page)

    links = [each[1:] for each in addresses.found if each.startswith("#")]
    assert len(links) == 15
    assert set(links) <= addresses.ids


def test_it_says_that_it_is_for_research_only(page, external_page, evaluation):
    for each in (page, external_page):
        assert "Research use only. Not a medical device" in words(each)
        assert evaluation.statement in words(each)
        assert "low probability does not exclude" in words(each)


def test_it_warns_of_the_pooled_curve_and_of_the_untested_ensemble(page):
    assert "The pooled curve mixes 5 models." in words(page)
    assert "The calibration of the ensemble is unverified." in words(page)
    assert "Cross-conformal:" in words(page)
    assert "ddof 1" in words(page)
    assert "ddof 0" in words(page)


def test_another_cohort_is_said_to_have_measured_the_ensemble(external_page):
    assert "The calibration of the ensemble is measured here:" in words(external_page)
    assert "mixes" not in words(external_page)
    assert "Learning curves" not in words(external_page)


def test_names_that_look_like_markup_are_shown_as_they_are(page):
    assert "Maker &lt;i&gt;One&lt;/i&gt;" in page
    assert "<i>One</i>" not in page


def test_no_patient_is_named_anywhere(report, cohort):
    patients = {exam.patient for exam in cohort.exams}

    for path in report.rglob("*"):
        if path.suffix in {".html", ".json", ".csv"}:
            text = path.read_text()
            assert not [patient for patient in patients if patient in text], path.name


def test_every_picture_of_the_page_lies_beside_it(report, page):
    names = {path.stem for path in (report / "figures").glob("*.png")}

    assert len([each for each in Addresses(page).found if each.startswith("data:")]) == len(names)
    assert names >= {"flow", "roc_folds", "roc_pooled", "roc_bern", "reliability", "pipeline"}
    assert names >= {"three_part", "mean_map", "learning_curves", "subgroups", "case_6"}


def test_the_tables_hold_the_numbers_of_the_evaluation(report, evaluation):
    folds = table(report, "folds")

    assert float(folds[0]["AUROC, ema (honest)"]) == evaluation.members[0].auroc
    assert float(folds[0]["95 % interval low"]) == evaluation.members[0].interval.low
    assert folds[6]["fold"] == "sd, ddof 1"
    assert float(folds[6]["AUROC, best (optimistic)"]) == evaluation.weights[2].summary.sd
    assert len(table(report, "predictions")) == 80
    assert len({row["curve"] for row in table(report, "roc")}) == 6
    assert {row["exams"] for row in table(report, "bern")} == {"79"}


def test_no_table_has_two_columns_of_one_name(report):
    for path in (report / "tables").glob("*.csv"):
        with path.open(newline="") as stream:
            header = next(csv.reader(stream))
        assert len(set(header)) == len(header), path.name


def test_the_numbers_are_strict_json(report, evaluation, cohort):
    def refuse(name):
        raise AssertionError(name)

    found = json.loads((report / "metrics.json").read_text(), parse_constant=refuse)

    assert found["discrimination"]["auroc"] == evaluation.discrimination.auroc
    assert found["ensemble_calibration"] == "unverified"
    assert found["cohort"]["exams"] == 80
    assert found["cohort"]["patients"] == 70
    assert found["cohort"]["flow"][1]["excluded"] == {"indeterminate myelogram": 1}
    assert found["operation"]["temperatures"] == list(evaluation.operation.temperatures)
    assert len(found["weights"]) == 3


def test_numbers_that_do_not_exist_are_shown_as_a_dash():
    assert shown(float("nan")) == "-"
    assert shown(None) == "-"


def test_an_interval_takes_two_columns_even_where_one_is_missing():
    sheet = Sheet("s", ("name", "95 %"), (("a", Interval(0.25, 0.5)), ("b", None)))

    assert as_csv(sheet) == "name,95 % low,95 % high\na,0.25,0.5\nb,,\n"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: the page was NOT opened in a browser")
def test_a_browser_shows_the_page(report, tmp_path):
    picture = tmp_path / "page.png"
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1100,2400",
        f"--screenshot={picture}",
        (report / "report.html").as_uri(),
    ]

    subprocess.run(command, check=True, capture_output=True, timeout=120)

    from PIL import Image

    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (2400, 1100, 3)
    assert tuple(pixels[5, 5]) == (0x7A, 0x2E, 0x00)  # the banner
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100  # figures were decoded
