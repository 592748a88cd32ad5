"""DenseNet-BC of 2D crops (Huang et al., CVPR 2017), under torchvision's names."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from worker.nets.classes import CLASSES
from worker.nets.planar import CHANNELS, Planar, initialise, pool

# Width of the 1x1 convolution before each 3x3, as a multiple of the growth.
BOTTLENECK: Final = 4


class DenseNet(Planar):
    """DenseNet-201, unless told otherwise.

    Its last map has a 32nd of the crop's side: 7 x 7 at 224 x 224.
    """

    fresh = ("classifier.",)

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 48, 32),
        init_features: int = 64,
        dilated: bool = False,
        classes: int = CLASSES,
    ) -> None:
        """Lay out the blocks.

        Args:
            growth_rate: channels that each layer adds.
            block_config: layers of each block; between blocks, channels and sides are halved.
            init_features: channels before the first block.
            dilated: do without the last halving of the side and dilate the last block instead.
                Every second value of the map (13 x 13 at 224 x 224) is then exactly that of the
                undilated network, so that weights serve both.
            classes: outputs.
        """
        super().__init__()
        channels = init_features
        self.features = nn.Sequential(
            OrderedDict(
                conv0=nn.Conv2d(CHANNELS, channels, 7, stride=2, padding=3, bias=False),
                norm0=nn.BatchNorm2d(channels),
                relu0=nn.ReLU(inplace=True),
                pool0=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )
        for number, layers in enumerate(block_config, start=1):
            last = number == len(block_config)
            if number > 1:
                stride = 1 if last and dilated else 2
                transition = _transition(channels, stride)
                self.features.add_module(f"transition{number - 1}", transition)
                channels //= 2
            block = _block(channels, growth_rate, layers, dilation=2 if last and dilated else 1)
            self.features.add_module(f"denseblock{number}", block)
            channels += layers * growth_rate
        # torchvision's number of the last norm, for however many blocks.
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.features.add_module("relu5", nn.ReLU(inplace=True))
        self.channels = channels
        self.classifier = nn.Linear(channels, classes)
        initialise(self, "fan_in")

    def vector(self, last_map: Tensor, radiomics: Tensor | None) -> Tensor:
        """The map's mean."""
        return pool(last_map)

    def logits(self, vector: Tensor) -> Tensor:
        """The (N, 2) logits of vectors."""
        logits: Tensor = self.classifier(vector)
        return logits


class _DenseLayer(nn.Sequential):
    """Adds `growth` channels to those it was given."""

    def __init__(self, channels: int, growth: int, dilation: int) -> None:
        inner = BOTTLENECK * growth
        super().__init__(
            OrderedDict(
                norm1=nn.BatchNorm2d(channels),
                relu1=nn.ReLU(inplace=True),
                conv1=nn.Conv2d(channels, inner, 1, bias=False),
                norm2=nn.BatchNorm2d(inner),
                relu2=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(inner, growth, 3, padding=dilation, dilation=dilation, bias=False),
            )
        )

    def forward(self, given: Tensor) -> Tensor:
        added: Tensor = super().forward(given)  # type: ignore[no-untyped-call]
        return torch.cat((given, added), dim=1)


def _block(channels: int, growth: int, layers: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            (f"denselayer{number + 1}", _DenseLayer(channels + number * growth, growth, dilation))
            for number in range(layers)
        )
    )


def _transition(channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2, stride=stride),
        )
    )
