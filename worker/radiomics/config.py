"""Which handcrafted features are computed, and how."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal, TypeAlias

Family: TypeAlias = Literal["shape", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm"]

# Raised whenever extraction.py makes other numbers of the same voxels; part of every config hash.
SPECIFICATION: Final = 1
ORIGINAL: Final = "original"

# PyRadiomics' features. The library knows more; they repeat these (dissimilarity is the difference
# average, sum variance the cluster tendency) or turn to NaN where scikit-image is not installed.
FEATURES: Final[Mapping[Family, tuple[str, ...]]] = {
    "shape": (
        "Elongation", "Flatness", "LeastAxisLength", "MajorAxisLength", "Maximum2DDiameterColumn",
        "Maximum2DDiameterRow", "Maximum2DDiameterSlice", "Maximum3DDiameter", "MeshVolume",
        "MinorAxisLength", "Sphericity", "SurfaceArea", "SurfaceVolumeRatio", "VoxelVolume",
    ),
    "firstorder": (
        "10Percentile", "90Percentile", "Energy", "Entropy", "InterquartileRange", "Kurtosis",
        "Maximum", "Mean", "MeanAbsoluteDeviation", "Median", "Minimum", "Range",
        "RobustMeanAbsoluteDeviation", "RootMeanSquared", "Skewness", "TotalEnergy", "Uniformity",
        "Variance",
    ),
    "glcm": (
        "Autocorrelation", "ClusterProminence", "ClusterShade", "ClusterTendency", "Contrast",
        "Correlation", "DifferenceAverage", "DifferenceEntropy", "DifferenceVariance", "Id", "Idm",
        "Idmn", "Idn", "Imc1", "Imc2", "InverseVariance", "JointAverage", "JointEnergy",
        "JointEntropy", "MCC", "MaximumProbability", "SumAverage", "SumEntropy", "SumSquares",
    ),
    "glrlm": (
        "GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance",
        "HighGrayLevelRunEmphasis", "LongRunEmphasis", "LongRunHighGrayLevelEmphasis",
        "LongRunLowGrayLevelEmphasis", "LowGrayLevelRunEmphasis", "RunEntropy",
        "RunLengthNonUniformity", "RunLengthNonUniformityNormalized", "RunPercentage",
        "RunVariance", "ShortRunEmphasis", "ShortRunHighGrayLevelEmphasis",
        "ShortRunLowGrayLevelEmphasis",
    ),
    "glszm": (
        "GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance",
        "HighGrayLevelZoneEmphasis", "LargeAreaEmphasis", "LargeAreaHighGrayLevelEmphasis",
        "LargeAreaLowGrayLevelEmphasis", "LowGrayLevelZoneEmphasis", "SizeZoneNonUniformity",
        "SizeZoneNonUniformityNormalized", "SmallAreaEmphasis", "SmallAreaHighGrayLevelEmphasis",
        "SmallAreaLowGrayLevelEmphasis", "ZoneEntropy", "ZonePercentage", "ZoneVariance",
    ),
    "gldm": (
        "DependenceEntropy", "DependenceNonUniformity", "DependenceNonUniformityNormalized",
        "DependenceVariance", "GrayLevelNonUniformity", "GrayLevelVariance",
        "HighGrayLevelEmphasis", "LargeDependenceEmphasis", "LargeDependenceHighGrayLevelEmphasis",
        "LargeDependenceLowGrayLevelEmphasis", "LowGrayLevelEmphasis", "SmallDependenceEmphasis",
        "SmallDependenceHighGrayLevelEmphasis", "SmallDependenceLowGrayLevelEmphasis",
    ),
    "ngtdm": ("Busyness", "Coarseness", "Complexity", "Contrast", "Strength"),
}  # fmt: skip


def log_name(sigma_mm: float) -> str:
    """As PyRadiomics names the image.

    >>> log_name(2.5)
    'log-sigma-2-5-mm-3D'
    """
    return f"log-sigma-{float(sigma_mm)}-mm-3D".replace(".", "-")


@dataclass(frozen=True)
class Radiomics:
    """Which features are computed, and how; part of every bundle that uses them.

    Voxels are not resampled.

    Attributes:
        original: whether grey levels and texture of the image itself are measured.
        log_sigmas_mm: the same of the image's Laplacian of Gaussian, once for each width in mm.
        families: of features. Shape is measured once, whatever the images.
        bin_width: of grey levels, in units of the volume, or None where `bin_count` is given.
        bin_count: grey levels from darkest to brightest voxel of the region. MR signal has no unit,
            and a filtered image another range than the original: a number fits where no width does.
        in_plane: whether texture is sought within slices only, as befits slices thicker than their
            pixels, or in three dimensions.
        min_voxels: a smaller region is refused.
    """

    original: bool = True
    log_sigmas_mm: tuple[float, ...] = ()
    families: tuple[Family, ...] = tuple(FEATURES)
    bin_width: float | None = None
    bin_count: int | None = 32
    in_plane: bool = True
    min_voxels: int = 64

    def __post_init__(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            ValueError: the configuration contradicts itself.
        """
        given = [each for each in (self.bin_width, self.bin_count) if each is not None]
        if len(given) != 1 or not 0 < given[0] < math.inf:
            raise ValueError(
                f"radiomics: found bin_width {self.bin_width} and bin_count {self.bin_count}; "
                "give one of them, above 0, and None for the other"
            )
        if not all(0 < sigma < math.inf for sigma in self.log_sigmas_mm):
            raise ValueError(
                f"radiomics: found log_sigmas_mm {self.log_sigmas_mm}; give widths above 0 mm"
            )
        for name, each in (("log_sigmas_mm", self.log_sigmas_mm), ("families", self.families)):
            if len(set(each)) < len(each):
                raise ValueError(f"radiomics: found {name} {each}; name each only once")
        if not self.names:
            raise ValueError(
                "radiomics: found nothing to measure; name families, and an image to measure"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features, in the order in which a vector holds them: image_family_feature."""
        images = [ORIGINAL] * self.original + [log_name(each) for each in self.log_sigmas_mm]
        return tuple(
            f"{image}_{family}_{feature}"
            for family in self.families
            for image in ([ORIGINAL] if family == "shape" else images)
            for feature in FEATURES[family]
        )

    @property
    def config_hash(self) -> str:
        """A sha256 that is the same wherever and whenever the same is computed."""
        facts = asdict(self) | {
            "log_sigmas_mm": [float(sigma) for sigma in self.log_sigmas_mm],
            "bin_width": None if self.bin_width is None else float(self.bin_width),
            "names": self.names,
            "specification": SPECIFICATION,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


# Features of Cüce et al., Front Med 2025;12:1659653, as far as its abstract says: original and LoG
# images. The widths, the grey levels and texture within slices are our reading.
PAPER_RADIOMICS: Final = Radiomics(log_sigmas_mm=(1.0, 2.0, 3.0, 4.0, 5.0))
