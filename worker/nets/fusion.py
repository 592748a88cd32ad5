"""A backbone with atrous spatial pyramid pooling, fused with radiomic features.

After Cüce et al., Front Med 2025;12:1659653 (DenseASPP-RadFusion, MobileASPP-RadFusion). Its
abstract names the parts; the numbers are ours. The pyramid is that of DeepLabv3 (Chen et al. 2017,
arXiv 1706.05587), with rates for small maps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from worker.nets.classes import CLASSES
from worker.nets.densenet import DenseNet
from worker.nets.mobilenet import MobileNetV3
from worker.nets.planar import Planar, initialise, pool


class IdleRates(ValueError):
    """Dilated convolutions whose outer taps never touch the map."""

    def __init__(self, idle: tuple[int, ...], side: int) -> None:
        super().__init__(idle, side)
        self.idle, self.side = idle, side

    def __str__(self) -> str:
        return (
            f"ASPP rates {', '.join(map(str, self.idle))} on a map of side {self.side}: a rate of "
            f"{self.side} or more touches it with the centre tap only, which makes a 3 x 3 "
            f"convolution a 1 x 1; set aspp_rates below {self.side}, or dilated = true or larger "
            "crops for a larger map"
        )


class BadRadiomics(ValueError):
    """Radiomic features are missing, or not as many as the network was built for."""

    def __init__(self, found: tuple[int, ...] | None, expected: tuple[int, ...]) -> None:
        super().__init__(found, expected)
        self.found, self.expected = found, expected

    def __str__(self) -> str:
        found = "none" if self.found is None else f"a {self.found} tensor"
        return (
            f"radiomic features: found {found}, expected {self.expected}; give the selected and "
            "z-scored features of every crop, or build the network without radfusion"
        )


class ASPP(nn.Module):
    """Looks at a map at several scales at once, and at its mean: (N, C, h, w) -> (N, C', h, w)."""

    def __init__(self, channels: int, out: int, rates: Sequence[int]) -> None:
        """Lay out the branches.

        Args:
            channels: of the map.
            out: channels of each branch, and of the result.
            rates: dilation of each 3 x 3 convolution.
        """
        super().__init__()
        self.rates = tuple(rates)
        self.branches = nn.ModuleList(
            [_convolution(channels, out), *(_convolution(channels, out, each) for each in rates)]
        )
        self.image_pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), _convolution(channels, out))
        self.projection = _convolution((len(self.branches) + 1) * out, out)

    def forward(self, given: Tensor) -> Tensor:
        """Concatenate all branches and mix them.

        Raises:
            IdleRates: the map is too small for a rate.
        """
        height, width = given.shape[-2:]
        side = min(height, width)
        if idle := tuple(each for each in self.rates if each >= side):
            raise IdleRates(idle, side)
        mean = self.image_pooling(given).expand(-1, -1, height, width)
        branches = [*(branch(given) for branch in self.branches), mean]
        mixed: Tensor = self.projection(torch.cat(branches, dim=1))
        return mixed


class RadFusion(Planar):
    """Image branch (backbone, ASPP, mean) and radiomics branch, weighed together."""

    fresh = ("aspp.", "radiomics.", "fusion.", "head.")

    def __init__(
        self,
        backbone: DenseNet | MobileNetV3,
        *,
        aspp_rates: Sequence[int],
        aspp_channels: int,
        radiomics: int,
        radiomics_dropout: float,
        radiomics_width: int = 64,
        fused_width: int = 128,
    ) -> None:
        """Put the branches together.

        Args:
            backbone: whose feature map is used; its classifier is not.
            aspp_rates: dilation of each 3 x 3 convolution of the pyramid; all below the map's side.
            aspp_channels: of each branch of the pyramid.
            radiomics: number of selected features. They come z-scored: where fewer were selected,
                0 fills up.
            radiomics_dropout: after the radiomics layer.
            radiomics_width: of the radiomics branch.
            fused_width: of the layer that both branches meet in.
        """
        super().__init__()
        self.features = backbone.features
        self.aspp = ASPP(backbone.channels, aspp_channels, aspp_rates)
        initialise(self.aspp, "fan_out")
        self.expected_radiomics = radiomics
        self.radiomics = nn.Sequential(
            nn.Linear(radiomics, radiomics_width),
            nn.ReLU(inplace=True),
            nn.Dropout(radiomics_dropout),
        )
        self.fusion = nn.Sequential(
            nn.Linear(aspp_channels + radiomics_width, fused_width), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(fused_width, CLASSES)

    def last_map(self, images: Tensor) -> Tensor:
        """What the pyramid makes of the backbone's map.

        Raises:
            IdleRates: the crops are too small for a rate.
        """
        mixed: Tensor = self.aspp(super().last_map(images))
        return mixed

    def vector(self, last_map: Tensor, radiomics: Tensor | None) -> Tensor:
        """What both branches say together.

        Raises:
            BadRadiomics: features are missing, or not as many as expected.
        """
        expected = (len(last_map), self.expected_radiomics)
        if radiomics is None or radiomics.shape != expected:
            raise BadRadiomics(None if radiomics is None else tuple(radiomics.shape), expected)
        fused: Tensor = self.fusion(torch.cat((pool(last_map), self.radiomics(radiomics)), dim=1))
        return fused

    def logits(self, vector: Tensor) -> Tensor:
        """The (N, 2) logits of vectors."""
        logits: Tensor = self.head(vector)
        return logits


def _convolution(channels: int, out: int, rate: int | None = None) -> nn.Sequential:
    """1 x 1, or 3 x 3 of a rate; BatchNorm; ReLU."""
    size: dict[str, Any] = (
        {"kernel_size": 1}
        if rate is None
        else {"kernel_size": 3, "padding": rate, "dilation": rate}
    )
    return nn.Sequential(
        nn.Conv2d(channels, out, bias=False, **size),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )
