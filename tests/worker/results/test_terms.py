import pytest
from pydicom.sr.coding import Code

from worker.ensemble import Band
from worker.quality import Reason
from worker.results import terms
from worker.results.terms import ANALYSES, FAMILY, KINDS, Kind, Phase

LO = 64


def codes_of(analysis):
    return [value for value in vars(analysis).values() if isinstance(value, Code)]


ALL_CODES = [
    *(value for value in vars(terms).values() if isinstance(value, Code)),
    *terms.BANDS.values(),
    *terms.LABEL_SETS.values(),
    *map(terms.reason_code, Reason),
    *terms.ORIGINS.values(),
    *(code for analysis in ANALYSES.values() for code in codes_of(analysis)),
    *(region.code for analysis in ANALYSES.values() for region in analysis.regions.values()),
]


@pytest.mark.parametrize("code", ALL_CODES, ids=lambda code: code.value)
def test_every_code_fits_its_attributes(code):
    assert 0 < len(code.meaning) <= LO
    assert 0 < len(code.scheme_designator) <= 16


def test_no_two_private_codes_share_a_value():
    ours = {
        (code.value, code.meaning) for code in ALL_CODES if code.scheme_designator == terms.SCHEME
    }

    assert len({value for value, _ in ours}) == len(ours)


def test_no_value_says_absent():
    values = [*terms.BANDS.values(), *terms.LABEL_SETS.values()]

    assert len(set(terms.BANDS)) == len(Band)
    assert not [code for code in values if "absent" in code.meaning.lower()]


@pytest.mark.parametrize("analysis", ANALYSES.values(), ids=ANALYSES.keys())
def test_every_kind_of_every_analysis_is_marked_investigational(analysis):
    for kind in Kind:
        description = analysis.descriptions[kind]
        assert description.startswith("AI ")
        assert description.endswith(" - INVESTIGATIONAL")
        assert len(description) <= LO
    assert analysis.summary_title.meaning.endswith(" - INVESTIGATIONAL")


def test_alternatives_are_sent_when_what_they_stand_for_would_be():
    for kind in Kind:
        original = KINDS[kind].alternative_of
        if original is not None:
            assert KINDS[kind].phase == KINDS[original].phase
            assert KINDS[kind].number == KINDS[original].number
            assert KINDS[kind].sop_class != KINDS[original].sop_class


def test_documents_of_a_family_are_written_in_the_same_encoding():
    documents = [kind for kind in Kind if KINDS[kind].phase in (Phase.REPORT, Phase.SUMMARY)]
    assert set(FAMILY) == set(documents)
    for kind, family in FAMILY.items():
        assert kind in family.values()
        assert {KINDS[each].sop_class for each in family.values()} == {KINDS[kind].sop_class}
