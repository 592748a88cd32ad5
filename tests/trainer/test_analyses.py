"""The tables of analyses agree: what one of them knows, all of them know."""

import pytest

from listener.console.chances import FINDINGS
from listener.segmentation import REGIONS
from listener.selection import ANALYSES, RULES
from trainer.reporting.wording import WORDING
from worker.bundle import DESCRIPTIONS
from worker.quality import DEMANDS
from worker.results import terms

TABLES = {
    "rules": RULES,
    "demands": DEMANDS,
    "descriptions of bundles": DESCRIPTIONS,
    "terms": terms.ANALYSES,
    "findings of the console": FINDINGS,
    "wording of the report": WORDING,
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_every_table_knows_every_analysis(table):
    assert set(table) == set(ANALYSES)


def test_regions_have_terms_where_readers_may_draw_them():
    for analysis, regions in REGIONS.items():
        assert [each.name for each in regions] == list(terms.ANALYSES[analysis].regions)
