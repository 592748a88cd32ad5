"""What tells one analysis from another, behind one interface.

interface   what the rest of the worker knows of an analysis
fistula     the whole head, contrast-enhanced T1: ensemble and occlusion map
infection   two regions on axial T2: ensembles with radiomics and Grad-CAM

A third analysis is a module here, its rules (listener/selection.py), its demands (quality.py), its
terms (results/terms.py) and a bundle.
"""

import torch

from worker.analyses.fistula import Fistula
from worker.analyses.infection import Infection
from worker.analyses.interface import Analysis
from worker.bundle import RegionBundle, VolumeBundle
from worker.ensemble import Ensemble
from worker.region_ensemble import RegionEnsemble


def open_analysis(
    bundle: VolumeBundle | RegionBundle,
    device: torch.device | str = "cpu",
    *,
    waits_for_reader: bool = False,
) -> Analysis:
    """Warm a bundle.

    Args:
        bundle: verified.
        device: to compute on.
        waits_for_reader: whether proposed regions must be seen by a reader before they are judged.

    Raises:
        BadBundle: weights are missing, altered or do not fit the network.
    """
    match bundle:
        case VolumeBundle():
            return Fistula(Ensemble(bundle, device))
        case RegionBundle():
            ensemble = RegionEnsemble(bundle, device)
            return Infection(ensemble, waits_for_reader=waits_for_reader)
