from dataclasses import fields, replace

import pytest
from pydicom.uid import UID

from worker.results.uids import Lineage, derive


def test_the_same_lineage_gives_the_same_uid_for_ever():
    # Frozen: objects with UIDs derived in the old way are in archives.
    made = Lineage("A", "1.2", "fistula", "d", "b 1", "w", "exact", specification=1)
    assert made.uid("report") == "2.25.43691743904826448046507464520053900982"


@pytest.mark.parametrize("ingredient", [field.name for field in fields(Lineage)])
def test_every_ingredient_changes_every_uid(lineage, ingredient):
    other = 99 if ingredient == "specification" else "other"
    changed = replace(lineage, **{ingredient: other})

    assert changed.uid("report") != lineage.uid("report")
    assert changed.series_uid("report") != lineage.series_uid("report")


def test_kinds_and_indices_have_uids_of_their_own(lineage):
    uids = {
        lineage.uid("overlay", 0),
        lineage.uid("overlay", 1),
        lineage.uid("report"),
        lineage.series_uid("overlay"),
        lineage.series_uid("report"),
    }

    assert len(uids) == 5


def test_uids_are_valid(lineage):
    assert UID(lineage.uid("report")).is_valid
    assert UID(lineage.tracking_uid).is_valid


def test_a_finding_is_tracked_across_models_but_a_retrained_model_is_another_device(lineage):
    retrained = replace(lineage, bundle="fistula-demo 2.0.0", weights_sha256="f" * 64)

    assert retrained.tracking_uid == lineage.tracking_uid
    assert retrained.station_uid == lineage.station_uid
    assert retrained.model_uid != lineage.model_uid


def test_ingredients_do_not_run_together():
    assert derive("a", "bc") != derive("ab", "c")
    assert derive("1") != derive(1)
