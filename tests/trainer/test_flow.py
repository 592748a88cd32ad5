"""The flow adds up, survives JSON, and can be read in a terminal."""

import json

import pytest
from rich.console import Console

from trainer.flow import Flow, Step

TABLE = Flow((Step("in the label table", patients=3, exams=5),))


def test_each_step_counts_patients_exams_and_reasons():
    flow = TABLE.then("with a study", ["a", "a", "b"], ["no study found", "no study found"])

    last = flow.steps[-1]
    assert (last.patients, last.exams) == (2, 3)
    assert last.excluded == {"no study found": 2}
    assert flow.excluded == 2


def test_an_exam_that_vanishes_without_a_reason_is_an_error():
    with pytest.raises(ValueError, match="3 exams left and 1 excluded do not add up to the 5"):
        TABLE.then("with a study", ["a", "a", "b"], ["no study found"])


def test_a_flow_survives_json():
    flow = TABLE.then("with a study", ["a", "b", "c"], ["no study found", "indeterminate label"])

    assert Flow.from_json(json.loads(json.dumps(flow.to_json()))) == flow


def test_the_table_names_every_reason():
    flow = TABLE.then("with a study", ["a", "b", "c", "c"], ["no study found"])
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(flow.table())

    printed = capture.get()
    assert "no study found" in printed
    assert "in the label table" in printed
