"""What all networks of 2D crops have in common: the steps from a crop to its logits.

Axes: images are (N, 3, H, W), the last feature map (N, C, h, w), radiomic features (N, K).
"""

from abc import abstractmethod
from typing import ClassVar, Final, Literal

from torch import Tensor, nn

from worker.nets.classes import NEGATIVE, POSITIVE

CHANNELS: Final = 3


class Planar(nn.Module):
    """Crops, and radiomic features where the network fuses them, in; (N, 2) logits out.

    The way is cut in three, `last_map`, `vector` and `logits`: Grad-CAM weighs the map, and
    out-of-distribution scores compare the vector. Networks without a radiomics branch take
    features too, and ignore them.

    Attributes:
        features: the backbone, under torchvision's names.
        fresh: how the names of weights begin that do not come from ImageNet.
        expected_radiomics: how many radiomic features are fused.
    """

    features: nn.Sequential
    fresh: ClassVar[tuple[str, ...]]
    expected_radiomics: int = 0

    def forward(self, images: Tensor, radiomics: Tensor | None = None) -> Tensor:
        """The (N, 2) logits: negative, positive."""
        return self.logits(self.features_of(images, radiomics))

    def last_map(self, images: Tensor) -> Tensor:
        """The (N, C, h, w) map that still knows where things are."""
        last: Tensor = self.features(images)
        return last

    @abstractmethod
    def vector(self, last_map: Tensor, radiomics: Tensor | None) -> Tensor:
        """The (N, F) vector that the last layer weighs."""

    @abstractmethod
    def logits(self, vector: Tensor) -> Tensor:
        """The (N, 2) logits of vectors."""

    def features_of(self, images: Tensor, radiomics: Tensor | None = None) -> Tensor:
        """The (N, F) vector that the last layer weighs; feed it to `log_odds`."""
        return self.vector(self.last_map(images), radiomics)

    def log_odds(self, vector: Tensor) -> Tensor:
        """The (N,) log odds of the positive class, uncalibrated: the logit of its softmax."""
        logits = self.logits(vector)
        return logits[:, POSITIVE] - logits[:, NEGATIVE]


def pool(last_map: Tensor) -> Tensor:
    """Mean over the map: (N, C, h, w) -> (N, C)."""
    return last_map.mean((2, 3))


def initialise(network: nn.Module, fan: Literal["fan_in", "fan_out"]) -> None:
    """Draw the weights of convolutions as He et al. do (ICCV 2015); their biases start at 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=fan)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
