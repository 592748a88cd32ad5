"""Judging by phantoms: none that was trained on, and signs that are there."""

from types import SimpleNamespace

import numpy as np

from trainer.pointing import STRONG, TRIALS, judge, planted_cases
from worker.ensemble import Band


def test_trials_are_held_on_phantoms_that_no_member_has_seen():
    seeds = [seed for trial in TRIALS for seed in trial.seeds]

    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 1_000_000  # training counts from 0


def test_a_planted_sign_is_well_above_what_parts_healthy_heads():
    for sign, (size, difference) in STRONG.items():
        for case in planted_cases(sign, 2):
            assert abs(getattr(case.shown, size) - getattr(case.usual, size)) >= difference


def test_a_judge_counts_bands_within_each_label():
    said = {
        1: SimpleNamespace(probability=0.9, band=Band.SUGGESTED, ood_percentile=10.0),
        0: SimpleNamespace(probability=0.2, band=Band.UNDETERMINED, ood_percentile=99.9),
    }
    ensemble = SimpleNamespace(
        bundle=SimpleNamespace(ood_limit=99.0),
        predict=lambda prepared: said[int(prepared.voxels.max())],
    )
    labels = np.array([0, 1, 0, 1])

    class Four:
        """Volumes that bear their label."""

        def __init__(self):
            self.labels = labels
            self.voxels = labels[:, None, None, None].astype(np.float16)

        def __len__(self):
            return 4

    found = judge(ensemble, Four(), "trial")

    assert found["trial_auroc"] == 1.0
    assert found["trial_positives_suggested"] == 1.0
    assert found["trial_negatives_undetermined"] == 1.0
    assert found["trial_out_of_distribution"] == 0.5
