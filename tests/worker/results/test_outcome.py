from dataclasses import replace
from datetime import datetime

import pytest

from worker.results.outcome import Options
from worker.results.terms import Kind


def test_a_result_needs_a_source(judged):
    with pytest.raises(ValueError, match="no source instance"):
        replace(judged, sources=())


def test_a_time_without_offset_is_refused(judged):
    with pytest.raises(ValueError, match="no offset from UTC"):
        replace(judged, created=datetime(2026, 11, 21))


def test_an_analysis_without_terms_is_refused(judged):
    with pytest.raises(ValueError, match="no terms for the analysis 'knee'; known: fistula"):
        replace(judged, lineage=replace(judged.lineage, analysis="knee"))


def test_series_are_numbered_from_the_base_of_the_analysis_or_of_the_site(judged):
    moved = replace(judged, options=Options(series_base=500))

    assert judged.series_number(Kind.OVERLAY) == 9003
    assert moved.series_number(Kind.OVERLAY) == 503
