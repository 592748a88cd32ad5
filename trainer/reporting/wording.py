"""What the report of a bundle or run says that depends on the analysis."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Wording:
    """Phrases of report.html.

    Attributes:
        target: what is to be predicted, and from what.
        not_excluded: a caution on low probabilities, without its beginning.
        decision: whom a decision by the model would send where.
        trade: what a threshold of 20 % means.
        no_maps: why there are none, or how to get some.
        limits: sentences.
        others: to whom figures do not carry over.
        reference: the examination that tells the label.
        predictors: what the model sees of an exam.
        score: items that a reader scores beside the model; empty where there are none.
        missing: what is done where something is not known.
    """

    target: str
    not_excluded: str
    decision: str
    trade: str
    no_maps: str
    limits: tuple[str, ...]
    others: str
    reference: str
    predictors: str
    score: str
    missing: str


WORDING: Final[Mapping[str, Wording]] = {
    "fistula": Wording(
        target="whether myelography finds the leak, by brain MRI alone",
        not_excluded="a fistula: some who have one have a normal brain MRI",
        decision="sending those to myelography whom the model suggests",
        trade="four needless myelograms as bad as one missed leak",
        no_maps="No maps were computed; ask for some with --maps.",
        limits=(
            "Research use only. Intended for study of suspected intracranial hypotension by those "
            "who can read the MRI themselves; nothing here replaces a reading.",
            "A normal brain MRI does not exclude a fistula, and neither does a low probability "
            "(Tay et al., AJNR 2025: a fistula in about 11 % of those with negative brain MRI).",
        ),
        others="another headache, or none",
        reference="myelogram",
        predictors="the whole prepared volume, nothing else",
        score="Bern items",
        missing="Bern score as a range; unknown facts are counted",
    ),
    "infection": Wording(
        target="whether lumbar puncture finds an acute infection, by axial T2 alone",
        not_excluded="an infection",
        decision="sending those to a lumbar puncture whom the model suggests",
        trade="four needless punctures as bad as one missed infection",
        no_maps="No mean map: regions lie elsewhere in every head. The service shows where its "
        "members looked, study by study.",
        limits=(
            "Research use only. Nothing here replaces a reading, or a lumbar puncture where one is "
            "called for.",
            "Regions are those of the cohort: where a reader drew them, figures of a service that "
            "judges proposals at once are lower.",
            "The abstract of Cüce et al., Front Med 2025;12:1659653 leaves most numbers open; ours "
            "are our reading of it.",
        ),
        others="another fever or headache, or none",
        reference="lumbar puncture",
        predictors="crops of regions, and handcrafted features where a model takes them",
        score="",
        missing="a study without a region is refused; unknown facts are counted",
    ),
}
