"""SR B: the text summary for people; plain text in any viewer that shows reports at all."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from highdicom.sr import (
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from listener.series import Header
from worker.analyses.interface import RegionFinding
from worker.bundle import NOT_SUGGESTED, SUGGESTED
from worker.ensemble import Band
from worker.results import terms
from worker.results.document import english
from worker.results.header import repair
from worker.results.outcome import Judged, Outcome, Seen
from worker.results.terms import Kind

CAUTION = (
    "Research use only. Investigational software. Not for primary diagnosis. "
    "Not reviewed by a physician."
)
REPLACES = "This report replaces an earlier one on the same study."
# Enough to tell two sets of weights apart by eye; the measurement report holds all 64.
DIGITS_OF_SHA256 = 12

LABELS_IN_PROSE = {
    frozenset({SUGGESTED}): 'the answer "suggested" alone',
    frozenset({NOT_SUGGESTED}): 'the answer "not suggested" alone',
    frozenset({SUGGESTED, NOT_SUGGESTED}): "both answers",
    frozenset[str](): "neither answer",
}


def summary(judged: Judged) -> Dataset:
    """The text summary of a judged study: its content."""
    return text(judged, conclusions(judged), findings(judged))


def text(outcome: Outcome, conclusions: Sequence[str], findings: Sequence[str]) -> Dataset:
    """A content tree without template: a title and two sections of sentences."""
    root = ContainerContentItem(name=outcome.terms.summary_title, is_content_continuous=False)
    root.ContentSequence = ContentSequence(
        [
            *english(),
            _section(terms.CONCLUSIONS, terms.CONCLUSION, conclusions),
            _section(terms.FINDINGS, terms.FINDING, findings),
        ]
    )
    return root


def _section(title: Code, name: Code, sentences: Sequence[str]) -> ContentItem:
    section = ContainerContentItem(
        name=title, is_content_continuous=False, relationship_type=RelationshipTypeValues.CONTAINS
    )
    section.ContentSequence = ContentSequence(
        [
            TextContentItem(
                name=name, value=sentence, relationship_type=RelationshipTypeValues.CONTAINS
            )
            for sentence in sentences
        ]
    )
    return section


def conclusions(judged: Judged) -> list[str]:
    """What a reader must know before anything else."""
    bundle, finding = judged.bundle, judged.terms.finding.meaning
    return [
        _verdict(judged),
        f"AI-estimated probability of {finding}: {100 * judged.prediction.probability:.1f} % "
        f"(suggested from {100 * bundle.threshold_high:.1f} %, "
        f"not suggested below {100 * bundle.threshold_low:.1f} %).",
        f"A low score does not exclude {judged.terms.finding_in_prose}.",
        *([bundle.statement] if bundle.statement else []),
        CAUTION,
    ]


def _verdict(judged: Judged) -> str:
    finding = judged.terms.finding.meaning
    match judged.prediction.band:
        case Band.SUGGESTED:
            return f"{finding}: suggested by the AI model."
        case Band.NOT_SUGGESTED:
            return f"{finding}: not suggested by the AI model, and not excluded."
        case Band.UNDETERMINED:
            return f"{finding}: undetermined, because {' and '.join(_doubts(judged))}."


def _doubts(judged: Judged) -> Iterator[str]:
    """Why the result is undetermined (rule R7 of the result specification)."""
    prediction, bundle = judged.prediction, judged.bundle
    if prediction.ood_percentile > bundle.ood_limit:
        yield "the scan looks unlike those that the model learnt from"
    if len(prediction.conformal) != 1:
        yield f"{LABELS_IN_PROSE[prediction.conformal]} of the model can be upheld"
    if bundle.threshold_low <= prediction.probability < bundle.threshold_high:
        yield "the probability lies between the two thresholds"


def findings(judged: Judged) -> list[str]:
    """How the conclusion came about, for those who want to weigh it."""
    bundle = judged.bundle
    return [
        _agreement(judged.prediction.members, judged.prediction.disagreement),
        f"Familiarity: the scan looks more unusual than {judged.prediction.ood_percentile:.1f} % "
        f"of the reference cohort (limit {bundle.ood_limit:.1f} %).",
        f"Conformal prediction upholds {LABELS_IN_PROSE[judged.prediction.conformal]}.",
        inputs(judged),
        *map(str, judged.unused),
        *(_region(judged, each) for each in judged.regions),
        *unmeasured(judged),
        *_features(judged),
        _map(judged),
        f"Model: {bundle.name} {bundle.version}, meant for {bundle.intended_input}; weights sha256 "
        f"{judged.lineage.weights_sha256[:DIGITS_OF_SHA256]}.",
        *replacement(judged),
    ]


def _agreement(members: Sequence[float], disagreement: float) -> str:
    if len(members) == 1:
        return "Agreement: unknown, since the ensemble has a single model."
    return (
        f"Agreement: the {len(members)} models of the ensemble estimated {100 * min(members):.1f} "
        f"to {100 * max(members):.1f} %, standard deviation {100 * disagreement:.1f} percentage "
        "points."
    )


def inputs(outcome: Outcome) -> str:
    """Which series were looked at, by number, description and size."""
    by_series = sorted(outcome.sources, key=_series_uid)
    return (
        "Input: "
        + "; ".join(
            _series(list(instances)) for _, instances in groupby(by_series, key=_series_uid)
        )
        + "."
    )


def _series_uid(source: Dataset) -> str:
    return str(source.get("SeriesInstanceUID", ""))


def _series(instances: Sequence[Dataset]) -> str:
    header = repair(instances[0])
    number = header.get("SeriesNumber", "without number")
    description = f'"{header.SeriesDescription}"' if "SeriesDescription" in header else "untitled"
    images = sum(Header(each).whole("NumberOfFrames") or 1 for each in instances)
    return f"series {number} {description}, {images} {'image' if images == 1 else 'images'}"


def _region(judged: Judged, region: RegionFinding) -> str:
    named, score = judged.terms.regions[region.name], region.score
    assert score is not None
    origin = "as a reader drew it" if region.origin == "drawn" else "proposed, not seen by a reader"
    weight = "the conclusion rests on it" if region.decisive else "for comparison only"
    return (
        f"{named.label} ({origin}; {named.colour_name} in the overlay): {region.volume_ml:.1f} ml, "
        f"probability {100 * score.probability:.1f} %, standard deviation "
        f"{100 * score.disagreement:.1f} percentage points; {weight}."
    )


def unmeasured(seen: Seen) -> list[str]:
    """A sentence on each region that was not looked at."""
    return [
        f"{seen.terms.regions[each.name].label}: not measured. Found: {each.refusal.found}. "
        f"Needed: {each.refusal.needed}. The conclusion does not rest on it."
        for each in seen.unmeasured
    ]


def _features(judged: Judged) -> list[str]:
    made = judged.measured_with
    if made is None:
        return []
    return [
        f"Handcrafted features: {made.library} {made.version}, configuration "
        f"{made.config_hash[:DIGITS_OF_SHA256]}."
    ]


def _map(judged: Judged) -> str:
    found = judged.map
    return (
        f"{found.title}: series {judged.series_number(Kind.OVERLAY)}. {found.procedure}; "
        f"{judged.terms.map_caveat}. Computed in {found.how}."
    )


def replacement(outcome: Outcome) -> list[str]:
    """A sentence on the earlier report, where there was one."""
    return [REPLACES] if outcome.predecessors else []
