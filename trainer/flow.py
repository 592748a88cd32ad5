"""How many patients and exams were left after each step, and why the others went (CONSORT).

A flow holds counts and reasons only, so that it may be shown to anybody.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Step:
    """One box of the flow, and what was taken out on the way to it.

    Attributes:
        stage: what the exams in this box have in common, in words.
        patients: left in the box.
        exams: left in the box; one exam is one study of one patient.
        excluded: reason to exams taken out since the box before.
    """

    stage: str
    patients: int
    exams: int
    excluded: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Flow:
    """The boxes from top to bottom.

    >>> flow = Flow((Step("in the label table", patients=3, exams=4),))
    >>> flow = flow.then("with a study", patients=["a", "b"], reasons=["no study found"] * 2)
    >>> flow.excluded
    2
    >>> Flow.from_json(flow.to_json()) == flow
    True
    """

    steps: tuple[Step, ...] = ()

    def then(self, stage: str, patients: Sequence[str], reasons: Iterable[str]) -> "Flow":
        """Add a box.

        Args:
            stage: what the exams in it have in common.
            patients: of each exam in it; the same patient may come several times.
            reasons: of each exam that was taken out on the way.

        Raises:
            ValueError: exams appeared or vanished since the box before.
        """
        excluded = dict(sorted(Counter(reasons).items()))
        step = Step(stage, len(set(patients)), len(patients), excluded)
        if self.steps and self.steps[-1].exams != step.exams + sum(excluded.values()):
            raise ValueError(
                f"flow, {stage!r}: {step.exams} exams left and {sum(excluded.values())} excluded "
                f"do not add up to the {self.steps[-1].exams} before; count every exclusion"
            )
        return Flow((*self.steps, step))

    @property
    def excluded(self) -> int:
        """Exams taken out over all steps."""
        return sum(sum(step.excluded.values()) for step in self.steps)

    def to_json(self) -> list[dict[str, Any]]:
        """The steps as plain values."""
        return [
            {
                "stage": step.stage,
                "patients": step.patients,
                "exams": step.exams,
                "excluded": dict(step.excluded),
            }
            for step in self.steps
        ]

    @classmethod
    def from_json(cls, steps: Sequence[Mapping[str, Any]]) -> "Flow":
        """The flow that `to_json` wrote.

        Raises:
            KeyError: a step lacks one of its values.
        """
        return cls(
            tuple(
                Step(
                    str(step["stage"]),
                    int(step["patients"]),
                    int(step["exams"]),
                    {str(reason): int(count) for reason, count in step["excluded"].items()},
                )
                for step in steps
            )
        )

    def table(self) -> Table:
        """The flow for a terminal: one row a step, and one for each reason of exclusion."""
        table = Table("step", "patients", "exams", "excluded", title="From table to cohort")
        for column in table.columns[1:]:
            column.justify = "right"
        for step in self.steps:
            for reason, count in step.excluded.items():
                table.add_row(f"  - {reason}", "", "", str(count), style="dim")
            table.add_row(step.stage, str(step.patients), str(step.exams), "")
        return table
