"""Features of IBSI's digital phantom have the reference values, to the digits that IBSI gives.

Phantom: Zwanenburg et al., Image biomarker standardisation initiative, reference manual
(arXiv:1612.07003), section "Digital phantom"; CC BY 4.0. Reference values: the manual's chapter on
features, as github.com/oncoray/mirp lists them in ibsi_1_dig_phantom.csv. There the tolerance of
all but the shapes is 0: three digits must agree.

Left out, since IBSI defines no such feature: MCC, Maximum2DDiameter{Slice,Row,Column}, TotalEnergy
(the energy times the volume of a voxel, tested below). Compared with a correction: axis lengths,
see AXES. Bins of width 1 are the phantom's grey levels themselves.
"""

import math

import numpy as np
import pytest

from worker.radiomics.config import FEATURES, Radiomics
from worker.radiomics.extraction import extract

SPACING_MM = (2.0, 2.0, 2.0)
OUT = 0  # a voxel outside of the region
PHANTOM = (  # slices along z, rows along y, columns along x
    ((1, 4, 4, 1, 1), (1, 4, 6, 1, 1), (4, 1, 6, 4, 1), (4, 4, 6, 4, 1)),
    ((1, 4, 4, 1, 1), (1, 1, 6, 1, 1), (OUT, 1, 3, 1, 1), (4, 4, 6, 1, 1)),
    ((1, 4, 4, OUT, OUT), (1, 1, 1, 1, 1), (1, 1, OUT, 1, 1), (1, 1, 6, 1, 1)),
    ((1, 4, 4, OUT, OUT), (1, 1, 1, 1, 1), (1, 1, 1, 1, 1), (1, 1, 6, 1, 1)),
)

# Feature, reference value, tolerance. IBSI's lengths have n - 1 below the fraction where
# PyRadiomics has n = 74 voxels.
AXES = math.sqrt(74 / 73)
SHAPE = (
    ("MeshVolume", 556, 4, 1),
    ("VoxelVolume", 592, 4, 1),
    ("SurfaceArea", 388, 3, 1),
    ("SurfaceVolumeRatio", 0.698, 0.004, 1),
    ("Sphericity", 0.843, 0.005, 1),
    ("Maximum3DDiameter", 13.1, 0.1, 1),
    ("MajorAxisLength", 11.4, 0.1, AXES),
    ("MinorAxisLength", 9.31, 0.06, AXES),
    ("LeastAxisLength", 8.54, 0.05, AXES),
    ("Elongation", 0.816, 0.005, 1),
    ("Flatness", 0.749, 0.005, 1),
)
FIRSTORDER = (
    ("Mean", 2.15),
    ("Variance", 3.05),
    ("Skewness", 1.08),
    ("Kurtosis", -0.355),
    ("Median", 1),
    ("Minimum", 1),
    ("10Percentile", 1),
    ("90Percentile", 4),
    ("Maximum", 6),
    ("InterquartileRange", 3),
    ("Range", 5),
    ("MeanAbsoluteDeviation", 1.55),
    ("RobustMeanAbsoluteDeviation", 1.11),
    ("Energy", 567),
    ("RootMeanSquared", 2.77),
    ("Entropy", 1.27),
    ("Uniformity", 0.512),
)
# Feature, within slices (2.5D; GLCM and GLRLM direction-merged), in space (3D; these two averaged).
TEXTURE = (
    ("glcm_MaximumProbability", 0.489, 0.503),
    ("glcm_JointAverage", 2.2, 2.14),
    ("glcm_SumSquares", 3.22, 3.1),
    ("glcm_JointEntropy", 2.48, 2.4),
    ("glcm_DifferenceAverage", 1.46, 1.43),
    ("glcm_DifferenceVariance", 3.11, 3.06),
    ("glcm_DifferenceEntropy", 1.61, 1.56),
    ("glcm_SumAverage", 4.41, 4.29),
    ("glcm_SumEntropy", 2.01, 1.92),
    ("glcm_JointEnergy", 0.286, 0.303),
    ("glcm_Contrast", 5.39, 5.32),
    ("glcm_Id", 0.668, 0.677),
    ("glcm_Idn", 0.847, 0.851),
    ("glcm_Idm", 0.606, 0.618),
    ("glcm_Idmn", 0.897, 0.898),
    ("glcm_InverseVariance", 0.0597, 0.0604),
    ("glcm_Correlation", 0.178, 0.157),
    ("glcm_Autocorrelation", 5.4, 5.06),
    ("glcm_ClusterTendency", 7.48, 7.07),
    ("glcm_ClusterShade", 16.6, 16.6),
    ("glcm_ClusterProminence", 147, 145),
    ("glcm_Imc1", -0.124, -0.157),
    ("glcm_Imc2", 0.487, 0.52),
    ("glrlm_ShortRunEmphasis", 0.665, 0.705),
    ("glrlm_LongRunEmphasis", 3.46, 3.06),
    ("glrlm_LowGrayLevelRunEmphasis", 0.58, 0.603),
    ("glrlm_HighGrayLevelRunEmphasis", 10.3, 9.7),
    ("glrlm_ShortRunLowGrayLevelEmphasis", 0.296, 0.352),
    ("glrlm_ShortRunHighGrayLevelEmphasis", 9.03, 8.54),
    ("glrlm_LongRunLowGrayLevelEmphasis", 2.79, 2.39),
    ("glrlm_LongRunHighGrayLevelEmphasis", 17.9, 17.6),
    ("glrlm_GrayLevelNonUniformity", 19.5, 21.8),
    ("glrlm_GrayLevelNonUniformityNormalized", 0.413, 0.43),
    ("glrlm_RunLengthNonUniformity", 22.3, 26.9),
    ("glrlm_RunLengthNonUniformityNormalized", 0.461, 0.513),
    ("glrlm_RunPercentage", 0.632, 0.68),
    ("glrlm_GrayLevelVariance", 3.58, 3.46),
    ("glrlm_RunVariance", 0.758, 0.574),
    ("glrlm_RunEntropy", 2.52, 2.43),
    ("glszm_SmallAreaEmphasis", 0.368, 0.255),
    ("glszm_LargeAreaEmphasis", 34.2, 550),
    ("glszm_LowGrayLevelZoneEmphasis", 0.368, 0.253),
    ("glszm_HighGrayLevelZoneEmphasis", 16.2, 15.6),
    ("glszm_SmallAreaLowGrayLevelEmphasis", 0.0295, 0.0256),
    ("glszm_SmallAreaHighGrayLevelEmphasis", 9.87, 2.76),
    ("glszm_LargeAreaLowGrayLevelEmphasis", 30.6, 503),
    ("glszm_LargeAreaHighGrayLevelEmphasis", 107, 1490),
    ("glszm_GrayLevelNonUniformity", 5.44, 1.4),
    ("glszm_GrayLevelNonUniformityNormalized", 0.302, 0.28),
    ("glszm_SizeZoneNonUniformity", 3.44, 1),
    ("glszm_SizeZoneNonUniformityNormalized", 0.191, 0.2),
    ("glszm_ZonePercentage", 0.243, 0.0676),
    ("glszm_GrayLevelVariance", 3.92, 2.64),
    ("glszm_ZoneVariance", 17.3, 331),
    ("glszm_ZoneEntropy", 3.08, 2.32),
    ("ngtdm_Coarseness", 0.0285, 0.0296),
    ("ngtdm_Contrast", 0.601, 0.584),
    ("ngtdm_Busyness", 6.8, 6.54),
    ("ngtdm_Complexity", 14.1, 13.5),
    ("ngtdm_Strength", 0.741, 0.763),
    ("gldm_SmallDependenceEmphasis", 0.159, 0.045),
    ("gldm_LargeDependenceEmphasis", 18.8, 109),
    ("gldm_LowGrayLevelEmphasis", 0.693, 0.693),
    ("gldm_HighGrayLevelEmphasis", 7.66, 7.66),
    ("gldm_SmallDependenceLowGrayLevelEmphasis", 0.0477, 0.00963),
    ("gldm_SmallDependenceHighGrayLevelEmphasis", 3.07, 0.736),
    ("gldm_LargeDependenceLowGrayLevelEmphasis", 17.2, 102),
    ("gldm_LargeDependenceHighGrayLevelEmphasis", 50.8, 235),
    ("gldm_GrayLevelNonUniformity", 37.9, 37.9),
    ("gldm_DependenceNonUniformity", 12.4, 4.86),
    ("gldm_DependenceNonUniformityNormalized", 0.167, 0.0657),
    ("gldm_GrayLevelVariance", 3.05, 3.05),
    ("gldm_DependenceVariance", 3.27, 22.1),
    ("gldm_DependenceEntropy", 3.36, 4.4),
)


@pytest.fixture(scope="module", params=["2.5D", "3D"])
def phantom(request):
    """Features of the phantom by name, and the column of TEXTURE they belong to."""
    grey = np.array(PHANTOM, dtype=np.float32).transpose(2, 1, 0)
    config = Radiomics(bin_width=1, bin_count=None, in_plane=request.param == "2.5D")
    vector = extract(grey, SPACING_MM, grey != OUT, config)
    found = dict(zip(vector.names, vector.values, strict=True))
    return found, ("2.5D", "3D").index(request.param)


def digits(reference):
    """Half a unit of the third digit, for rounding."""
    return 0.5 * 10 ** (math.floor(math.log10(abs(reference))) - 2) * (1 + 1e-9)


def differing(found, expected):
    """What lies outside of the tolerance, for people to read."""
    return [
        f"{name}: found {found[name]:.5g}, IBSI {reference} +- {tolerance:.2g}"
        for name, reference, tolerance in expected
        if abs(found[name] - reference) > tolerance
    ]


def test_shapes_are_ibsis(phantom):
    found, _ = phantom
    expected = [
        (f"original_shape_{name}", reference, tolerance) for name, reference, tolerance, _ in SHAPE
    ]
    corrected = {f"original_shape_{name}": factor for name, *_, factor in SHAPE}

    assert not differing({name: found[name] * corrected[name] for name in corrected}, expected)


def test_grey_levels_are_ibsis(phantom):
    found, _ = phantom
    expected = [
        (f"original_firstorder_{name}", reference, digits(reference))
        for name, reference in FIRSTORDER
    ]

    assert not differing(found, expected)


def test_total_energy_is_the_energy_times_the_volume_of_a_voxel(phantom):
    found, _ = phantom

    assert found["original_firstorder_TotalEnergy"] == 567 * 2.0**3


def test_texture_is_ibsis(phantom):
    found, column = phantom
    expected = [
        (f"original_{name}", references[column], digits(references[column]))
        for name, *references in TEXTURE
    ]

    assert not differing(found, expected)


def test_what_ibsi_does_not_define_is_named_and_nothing_else_is_left_out():
    compared = {f"shape_{name}" for name, *_ in SHAPE} | {name for name, *_ in TEXTURE}
    compared |= {f"firstorder_{name}" for name, _ in FIRSTORDER}
    computed = {f"{family}_{name}" for family, names in FEATURES.items() for name in names}

    assert compared - computed == set()
    assert computed - compared == {
        "firstorder_TotalEnergy",
        "glcm_MCC",
        "shape_Maximum2DDiameterColumn",
        "shape_Maximum2DDiameterRow",
        "shape_Maximum2DDiameterSlice",
    }
