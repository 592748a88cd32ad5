from dataclasses import replace

import pytest

from worker.bundle import NOT_SUGGESTED, SUGGESTED
from worker.ensemble import Band
from worker.results.outcome import Predecessor
from worker.results.result import Kind, objects
from worker.results.summary import conclusions, findings


@pytest.fixture
def sentences(content):
    """What a reader sees, section by section."""

    def read(outcome):
        document = objects(outcome)[-1].dataset
        assert document.SOPClassUID.name == "Enhanced SR Storage"
        return {
            title: [item.TextValue for item in content(document, title).ContentSequence]
            for title in ("Conclusions", "Findings")
        }

    return read


def undetermined(judged, **changes):
    prediction = replace(judged.prediction, band=Band.UNDETERMINED, **changes)
    return conclusions(replace(judged, prediction=prediction))[0]


def test_the_summary_says_what_a_radiologist_must_know(judged, sentences):
    assert sentences(judged)["Conclusions"] == [
        "CSF-venous fistula: suggested by the AI model.",
        "AI-estimated probability of CSF-venous fistula: 87.3 % (suggested from 65.0 %, "
        "not suggested below 35.0 %).",
        "A low score does not exclude a CSF-venous fistula.",
        "Trained on synthetic phantoms only: no clinical meaning.",
        "Research use only. Investigational software. Not for primary diagnosis. "
        "Not reviewed by a physician.",
    ]


def test_the_summary_says_how_the_result_came_about(judged, sentences):
    assert sentences(judged)["Findings"] == [
        "Agreement: the 5 models of the ensemble estimated 84.0 to 91.0 %, standard deviation "
        "2.3 percentage points.",
        "Familiarity: the scan looks more unusual than 42.0 % of the reference cohort "
        "(limit 99.0 %).",
        'Conformal prediction upholds the answer "suggested" alone.',
        'Input: series 7 "SAG T1 POST", 14 images.',
        "Occlusion map: series 9003. Boxes of 8 x 8 x 8 mm were blanked one after another at "
        "9000 places, and the change of the model's log odds was recorded. Warm colours mark what "
        "spoke for the finding, cool colours what spoke against it; the map shows where the model "
        "looked, not where a fistula is. Computed in mode paper, exact.",
        "Model: fistula-demo 1.2.3, meant for contrast-enhanced T1 of the head in suspected "
        "intracranial hypotension; weights sha256 0123456789ab.",
    ]


def test_a_low_score_is_not_an_all_clear(judged):
    low = replace(judged.prediction, probability=0.02, band=Band.NOT_SUGGESTED)

    verdict, *rest = conclusions(replace(judged, prediction=low))

    assert verdict == "CSF-venous fistula: not suggested by the AI model, and not excluded."
    assert "A low score does not exclude a CSF-venous fistula." in rest


def test_an_undetermined_result_says_why(judged):
    both = frozenset({SUGGESTED, NOT_SUGGESTED})

    assert undetermined(judged, probability=0.5) == (
        "CSF-venous fistula: undetermined, because the probability lies between the two thresholds."
    )
    assert undetermined(judged, ood_percentile=99.9) == (
        "CSF-venous fistula: undetermined, because the scan looks unlike those that the model "
        "learnt from."
    )
    assert undetermined(judged, conformal=both) == (
        "CSF-venous fistula: undetermined, because both answers of the model can be upheld."
    )
    assert undetermined(judged, probability=0.5, conformal=frozenset()) == (
        "CSF-venous fistula: undetermined, because neither answer of the model can be upheld and "
        "the probability lies between the two thresholds."
    )


def test_a_single_model_has_nobody_to_agree_with(judged):
    alone = replace(judged.prediction, members=(0.87,), disagreement=0.0)

    assert findings(replace(judged, prediction=alone))[0] == (
        "Agreement: unknown, since the ensemble has a single model."
    )


def test_frames_count_as_images(judge, siemens, sentences):
    assert 'Input: series 6 "anat-T1w_acq-tfl", 96 images.' in sentences(judge(siemens))["Findings"]


def test_a_replacement_says_so(judged, sentences):
    again = replace(judged, predecessors=(Predecessor(judged.lineage, "report"),))

    assert sentences(again)["Findings"][-1] == (
        "This report replaces an earlier one on the same study."
    )


def test_the_summary_does_not_pass_for_a_radiologists_report(judged):
    summary = next(each.dataset for each in objects(judged) if each.kind is Kind.SUMMARY)

    title = summary.ConceptNameCodeSequence[0]
    assert (title.CodingSchemeDesignator, title.CodeValue) == ("99MONRO", "CVF-SUMMARY")
    assert "ContentTemplateSequence" not in summary
