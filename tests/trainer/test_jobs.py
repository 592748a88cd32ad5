"""Folds run at once, each a process of its own."""

import pytest

from trainer.jobs import fit_at_once
from trainer.run import BadRun


def test_a_fold_that_fails_is_named_with_its_reason_and_its_log(tmp_path):
    arguments = ("--cohort", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run"))

    with pytest.raises(BadRun, match=r"fold 0 failed: monro: cohort .*nowhere.*log\.txt, mend it"):
        fit_at_once(tmp_path / "run", 2, arguments, "cpu", 1, lambda number, epoch: None)

    assert not (tmp_path / "run" / "fold_1" / "log.txt").exists()
