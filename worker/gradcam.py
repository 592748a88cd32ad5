"""Grad-CAM: where on a crop a network sees what speaks for the finding."""

import torch
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
