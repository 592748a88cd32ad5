"""MobileNetV3-Large of 2D crops (Howard et al., ICCV 2019), under torchvision's names."""

from typing import Final, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from worker.nets.classes import CLASSES
from worker.nets.planar import CHANNELS, Planar, initialise, pool


class Bottleneck(NamedTuple):
    """One row of the paper's table 1."""

    kernel: int
    expanded: int
    out: int
    squeezes: bool
    activation: type[nn.ReLU] | type[nn.Hardswish]
    stride: int


STEM: Final = 16
LARGE: Final = (
    Bottleneck(3, 16, 16, False, nn.ReLU, 1),
    Bottleneck(3, 64, 24, False, nn.ReLU, 2),
    Bottleneck(3, 72, 24, False, nn.ReLU, 1),
    Bottleneck(5, 72, 40, True, nn.ReLU, 2),
    Bottleneck(5, 120, 40, True, nn.ReLU, 1),
    Bottleneck(5, 120, 40, True, nn.ReLU, 1),
    Bottleneck(3, 240, 80, False, nn.Hardswish, 2),
    Bottleneck(3, 200, 80, False, nn.Hardswish, 1),
    Bottleneck(3, 184, 80, False, nn.Hardswish, 1),
    Bottleneck(3, 184, 80, False, nn.Hardswish, 1),
    Bottleneck(3, 480, 112, True, nn.Hardswish, 1),
    Bottleneck(3, 672, 112, True, nn.Hardswish, 1),
    Bottleneck(5, 672, 160, True, nn.Hardswish, 2),
    Bottleneck(5, 960, 160, True, nn.Hardswish, 1),
    Bottleneck(5, 960, 160, True, nn.Hardswish, 1),
)
# The row whose stride a dilated network leaves out.
LAST_STRIDE: Final = max(row for row, each in enumerate(LARGE) if each.stride == 2)
# The last convolution widens to this multiple of its input.
WIDENING: Final = 6
HIDDEN: Final = 1280
# Both of torchvision's; its weights were trained with them.
EPSILON: Final = 0.001
MOMENTUM: Final = 0.01


class MobileNetV3(Planar):
    """MobileNetV3-Large, unless told otherwise.

    Its last map has a 32nd of the crop's side: 7 x 7 at 224 x 224.
    """

    fresh = ("classifier.3.",)

    def __init__(
        self,
        width: float = 1.0,
        dilated: bool = False,
        dropout: float = 0.2,
        classes: int = CLASSES,
    ) -> None:
        """Lay out the rows of the table.

        Args:
            width: multiplies all channels.
            dilated: do without the last halving of the side and dilate what follows instead: the
                map has a 16th of the crop's side.
            dropout: before the last layer.
            classes: outputs.
        """
        super().__init__()
        channels = divisible(STEM * width)
        layers: list[nn.Module] = [_convolution(CHANNELS, channels, 3, nn.Hardswish, stride=2)]
        for number, row in enumerate(LARGE):
            scaled = row._replace(
                expanded=divisible(row.expanded * width),
                out=divisible(row.out * width),
            )
            stride = 1 if dilated and number == LAST_STRIDE else row.stride
            dilation = 2 if dilated and number > LAST_STRIDE else 1
            layers.append(_InvertedResidual(channels, scaled, stride, dilation))
            channels = scaled.out
        self.channels = WIDENING * channels
        layers.append(_convolution(channels, self.channels, 1, nn.Hardswish))
        self.features = nn.Sequential(*layers)
        hidden = divisible(HIDDEN * width)
        self.classifier = nn.Sequential(
            nn.Linear(self.channels, hidden),
            nn.Hardswish(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        initialise(self, "fan_out")

    def vector(self, last_map: Tensor, radiomics: Tensor | None) -> Tensor:
        """The map's mean, through the hidden layer."""
        hidden: Tensor = self.classifier[:-1](pool(last_map))
        return hidden

    def logits(self, vector: Tensor) -> Tensor:
        """The (N, 2) logits of vectors."""
        logits: Tensor = self.classifier[-1](vector)
        return logits


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple that is not more than a tenth smaller.

    >>> divisible(22), divisible(10), divisible(3)
    (24, 16, 8)
    """
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest + by if nearest < 0.9 * channels else nearest


class _SqueezeExcitation(nn.Module):
    """Weighs channels by what all positions say (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = divisible(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, given: Tensor) -> Tensor:
        squeezed = functional.relu(self.fc1(functional.adaptive_avg_pool2d(given, 1)))
        return functional.hardsigmoid(self.fc2(squeezed)) * given


class _InvertedResidual(nn.Module):
    """Widen, look around in each channel, narrow; and add what was given where that fits."""

    def __init__(self, channels: int, row: Bottleneck, stride: int, dilation: int) -> None:
        super().__init__()
        # By the stride of the table, so that a dilated network computes what the undilated does.
        self.adds = row.stride == 1 and channels == row.out
        layers: list[nn.Module] = []
        if row.expanded != channels:
            layers.append(_convolution(channels, row.expanded, 1, row.activation))
        layers.append(
            _convolution(
                row.expanded,
                row.expanded,
                row.kernel,
                row.activation,
                stride=stride,
                dilation=dilation,
                groups=row.expanded,
            )
        )
        if row.squeezes:
            layers.append(_SqueezeExcitation(row.expanded))
        layers.append(_convolution(row.expanded, row.out, 1, None))
        self.block = nn.Sequential(*layers)

    def forward(self, given: Tensor) -> Tensor:
        result: Tensor = self.block(given)
        return result + given if self.adds else result


def _convolution(
    channels: int,
    out: int,
    kernel: int,
    activation: type[nn.ReLU] | type[nn.Hardswish] | None,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(
            channels,
            out,
            kernel,
            stride=stride,
            padding=kernel // 2 * dilation,
            dilation=dilation,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(out, eps=EPSILON, momentum=MOMENTUM),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)
