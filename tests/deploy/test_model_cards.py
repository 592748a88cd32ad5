"""The model cards say what the committed bundles enclose, and their words fit the numbers."""

import pytest

from deploy.model_cards import CARDS, DOCS, card
from worker.seal import read_metadata


def row(page: str, beginning: str) -> list[str]:
    """Cells of the last table row that begins so."""
    line = [each for each in page.splitlines() if each.startswith(beginning)][-1]
    return [cell.strip() for cell in line.strip("|").split("|")]


def interval(cell: str) -> tuple[float, float]:
    low, _, high = cell.partition(" to ")
    return float(low), float(high)


@pytest.mark.parametrize("analysis", CARDS)
def test_a_card_is_that_of_the_bundle(analysis: str) -> None:
    page = (DOCS / f"model-card-{analysis}.md").read_text()

    assert page == card(analysis), "write it anew: make model-cards"
    assert "no clinical meaning" in page


def test_what_the_card_for_fistula_says_in_words_is_so() -> None:
    page = card("fistula")
    figures = read_metadata(CARDS["fistula"])["eval_metrics"]

    low, high = interval(row(page, "| difference")[-1])
    assert low < 0 < high, "no better than the Bern score"
    low, high = interval(row(page, "| Bern score | low")[-1])
    assert low < 0.5 < high, "no better than a coin"
    for sign in ("sinus", "subdural"):
        assert figures[f"{sign}_hit"] > 2 * figures[f"{sign}_chance"]
    for sign in ("cisterns", "pituitary"):
        assert figures[f"{sign}_hit"] == 0
        assert figures[f"{sign}_energy"] < figures[f"{sign}_chance"]


def test_what_the_card_for_infection_says_in_words_is_so() -> None:
    page = card("infection")
    metadata = read_metadata(CARDS["infection"])

    low, high = interval(row(page, "| ventricles | drawn | auroc")[-1])
    assert ("cannot be told from chance" in page) == (low <= 0.5 <= high)
    assert metadata["fit"]["statement"]["sensitivity"] >= 0.95, "few infections are not suggested"
    assert metadata["fit"]["preparation"]["scaled_by"] == "brain"


@pytest.mark.parametrize(
    "finding",
    [
        "fine-scale filtered features tell most",
        "sublentiform clearly better",
        "the strict way confirms sublentiform",
    ],
)
def test_what_the_paper_found_holds_on_the_cohort_of_the_demonstration(finding: str) -> None:
    assert row(card("infection"), f"| {finding}")[1] == "holds"
