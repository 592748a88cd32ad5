"""Grad-CAM: where on a crop a network sees what speaks for the finding."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as serialise
from torch import Tensor
from torch.nn import functional

from worker.nets import Planar


def heat(network: Planar, images: Tensor, radiomics: Tensor | None = None) -> Tensor:
    """Weigh the last feature map by what each channel does to the log odds.

    Selvaraju et al., ICCV 2017, on the log odds of the positive class: of two logits only their
    difference counts. The map is that of `last_map`: behind ASPP where there is one. Radiomic
    features have no place on the crop; they only shift what the map is weighed by.

    Args:
        network: in evaluation mode; its weights may be frozen.
        images: (N, 3, H, W).
        radiomics: (N, K), where the network fuses them.

    Returns:
        (N, H, W), not scaled: 0 where nothing speaks for the finding, in log odds per place of
        the map elsewhere.
    """
    with torch.no_grad():
        last = network.last_map(images)
    with torch.enable_grad():
        watched = last.clone().requires_grad_()
        odds = network.log_odds(network.vector(watched, radiomics))
        (gradient,) = torch.autograd.grad(odds.sum(), watched)
    weights = gradient.mean((2, 3), keepdim=True)
    coarse = functional.relu((weights * last).sum(1, keepdim=True))
    # align_corners=False is the face-to-face convention, as in preprocess.
    fine = functional.interpolate(coarse, images.shape[-2:], mode="bilinear", align_corners=False)
    return fine[:, 0]


@dataclass(frozen=True, eq=False)
class CamMap:
    """What spoke for the finding, on the grid of the source volume.

    Attributes:
        heat: float32 (X, Y, Z), mean over members, in log odds per place of the feature map; 0 or
            more.
        looked: bool (X, Y, Z), where there was a crop.
        affine: 4 x 4, voxel -> RAS mm.
        crops: that were looked at.
        members: that looked.
    """

    heat: NDArray[np.float32]
    looked: NDArray[np.bool_]
    affine: NDArray[np.float64]
    crops: int
    members: int

    title = "Grad-CAM map"
    image_type = "GRADCAM"
    canonical = "grad-cam"
    quantity = "Weight of the last feature map in the log odds"
    derivation = (
        "weight of the last feature map in the log odds of the finding; warm supports the finding"
    )

    @property
    def strongest(self) -> float:
        """The largest effect, in log odds."""
        return float(self.heat.max(initial=0.0))

    @property
    def warmest(self) -> float:
        """The same: nothing speaks against the finding here."""
        return self.strongest

    @property
    def how(self) -> str:
        """How it was made, in words for every report."""
        return f"one pass over {self.crops} crops, mean of {self.members} members"

    @property
    def brief(self) -> str:
        """The same in a few words, for the margin of a picture."""
        return "Grad-CAM of the decisive region."

    @property
    def procedure(self) -> str:
        """What was done, as sentences for people."""
        return (
            f"On {self.crops} crops around the decisive region, the last feature map of each of "
            f"{self.members} models was weighed by its effect on the log odds. Warm colours mark "
            "what spoke for the finding"
        )

    @property
    def parameters(self) -> str:
        """What was done, as one line for machines."""
        return f"Grad-CAM map: {self.how}"

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values for the ledger."""
        return {"map": f"Grad-CAM, {self.how}"}

    def serialised(self) -> bytes:
        """The map for research: heat and affine as safetensors."""
        return serialise(
            {"heat": np.ascontiguousarray(self.heat), "affine": np.ascontiguousarray(self.affine)},
            metadata={"how": self.how},
        )
