"""Which items of TRIPOD+AI a report answers, and which its authors still have to.

Collins et al., BMJ 2024;385:e078378: 27 items in 52 parts. Topics are in our words; the statement
itself is what a manuscript is held against.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from trainer.reporting.wording import Wording

Answer: TypeAlias = Literal["yes", "partly", "authors", "not applicable"]


@dataclass(frozen=True)
class Item:
    """One part of the checklist.

    Attributes:
        number: such as "12c".
        topic: in our words.
        answer: whether the report answers it; "authors" is left to those who write the paper.
        where: section of the report, or what is left to say, with phrases of the analysis.
        external: the answer and place in an external validation, where they differ.
    """

    number: str
    topic: str
    answer: Answer
    where: str
    external: tuple[Answer, str] | None = None


@dataclass(frozen=True)
class Answered:
    """One row of the table."""

    number: str
    topic: str
    answer: Answer
    where: str


ITEMS: Final = (
    Item("1", "Title names development or evaluation, population, outcome", "yes", "Title"),
    Item("2", "Abstract by TRIPOD+AI for Abstracts", "authors", "The key figures are in Summary"),
    Item("3a", "Healthcare context and rationale, existing models", "authors", "Introduction"),
    Item("3b", "Target population, purpose, intended users", "authors", "Introduction"),
    Item("3c", "Known inequalities between groups of people", "authors", "Introduction"),
    Item("4", "Objectives: development, evaluation or both", "yes", "Title, Methods"),
    Item(
        "5a",
        "Sources of data and how representative they are",
        "partly",
        "Participants: sites, scanners; the authors add the setting",
    ),
    Item("5b", "Dates of accrual", "authors", "No dates are kept in a cohort"),
    Item("6a", "Setting, number and place of centres", "partly", "Participants: sites"),
    Item("6b", "Eligibility", "partly", "Participants: flow, with every exclusion"),
    Item("6c", "Treatments received", "authors", "Say whether patients were treated before MRI"),
    Item("7", "Preparation of data and quality checks", "yes", "Methods: preparation; flow"),
    Item(
        "8a",
        "Outcome, how and when assessed",
        "partly",
        "Participants: days from MRI to {words.reference}, which the authors describe",
    ),
    Item("8b", "Who assessed the outcome", "authors", "Readers of each {words.reference}"),
    Item(
        "8c", "Blinding of the outcome's assessment", "authors", "Readers of each {words.reference}"
    ),
    Item("9a", "Choice of predictors", "yes", "Methods: {words.predictors}"),
    Item("9b", "Definition of predictors", "yes", "Methods: preparation"),
    Item(
        "9c",
        "Who assessed predictors by judgement",
        "not applicable",
        "None for the model; the authors say who read the {judged}",
    ),
    Item(
        "10",
        "Sample size and its justification",
        "partly",
        "Participants: size; intervals show what it allows",
    ),
    Item("11", "Missing data", "yes", "Flow; {words.missing}"),
    Item(
        "12a",
        "Use of the data, partition",
        "yes",
        "Methods: folds, patients whole",
        ("yes", "Methods: all exams evaluate, none trains"),
    ),
    Item("12b", "Handling of predictors", "yes", "Methods: preparation"),
    Item(
        "12c",
        "Model, building, tuning, internal validation",
        "yes",
        "Methods",
        ("partly", "Methods: the bundle's network; its own report has the rest"),
    ),
    Item("12d", "Heterogeneity across clusters", "partly", "Subgroups: site, scanner"),
    Item(
        "12e",
        "Measures of performance and their rationale",
        "yes",
        "Each section says what it measures",
    ),
    Item(
        "12f",
        "Model updating",
        "yes",
        "Calibration: temperatures, one per member",
        ("not applicable", "The bundle is frozen"),
    ),
    Item("12g", "How predictions were calculated", "yes", "Methods"),
    Item(
        "13",
        "Class imbalance",
        "yes",
        "Methods: weighted loss; recalibrated by temperatures",
        ("not applicable", "Nothing is fitted"),
    ),
    Item("14", "Fairness", "partly", "Subgroups: sex, age, site, scanner"),
    Item("15", "Output and classification, thresholds", "yes", "Operating points; Conformal sets"),
    Item(
        "16",
        "Differences between development and evaluation data",
        "not applicable",
        "One cohort, cross-validated",
        ("partly", "Participants, beside the report of the development"),
    ),
    Item("17", "Ethical approval", "authors", "Committee and consent"),
    Item("18a", "Funding", "authors", "Open science"),
    Item("18b", "Conflicts of interest", "authors", "Open science"),
    Item("18c", "Protocol", "authors", "Open science"),
    Item("18d", "Registration", "authors", "Open science"),
    Item("18e", "Sharing of data", "authors", "Open science; Methods has the cohort's fingerprint"),
    Item("18f", "Sharing of code", "yes", "Methods: versions; monro is open source"),
    Item("19", "Involvement of patients and public", "authors", "Methods of the paper"),
    Item("20a", "Flow of participants", "yes", "Participants: flow"),
    Item("20b", "Characteristics, with missing data", "yes", "Participants: table"),
    Item(
        "20c",
        "Distribution of predictors beside development",
        "not applicable",
        "One cohort, cross-validated",
        ("partly", "Participants; Statements: unlike exams"),
    ),
    Item("21", "Participants and outcomes in each analysis", "yes", "Counts in every table"),
    Item(
        "22",
        "The full model",
        "yes",
        "The bundle that `python -m trainer export` writes",
        ("yes", "The bundle evaluated"),
    ),
    Item(
        "23a",
        "Performance with intervals, also in subgroups",
        "yes",
        "Discrimination, Calibration, Operating points, Decision curve, Subgroups",
    ),
    Item("23b", "Heterogeneity of performance across clusters", "partly", "Subgroups"),
    Item(
        "24",
        "Results of model updating",
        "yes",
        "Calibration: before and after",
        ("not applicable", "The bundle is frozen"),
    ),
    Item("25", "Interpretation", "authors", "Discussion"),
    Item("26", "Limitations", "partly", "Limits, those of the design; the authors add the rest"),
    Item("27a", "Poor or missing input in use", "yes", "Limits: what the service refuses"),
    Item("27b", "What users have to do, and their expertise", "partly", "Limits: intended use"),
    Item("27c", "Next steps", "authors", "Discussion"),
)


def answered(external: bool, words: Wording) -> tuple[Answered, ...]:
    """The checklist as a report of this kind answers it.

    Args:
        external: of a frozen bundle on another cohort.
        words: of the analysis.
    """
    return tuple(
        Answered(item.number, item.topic, *_answer(item, external, words)) for item in ITEMS
    )


def _answer(item: Item, external: bool, words: Wording) -> tuple[Answer, str]:
    answer, where = (item.answer, item.where) if item.external is None else item.external
    if not external:
        answer, where = item.answer, item.where
    return answer, where.format(words=words, judged=words.score or "regions")
