"""The overlay as a picture: anatomy in grey, the occlusion map in colour, a margin that explains.

Images are (rows, columns) or (rows, columns, channel), row 0 at the top, as the source was
acquired. The margin is added at the right and at the bottom only, so the first pixel, and with it
the geometry of the source, stays where it was.

Warm colours mark regions that support the finding (blanking them lowers the log odds), cool colours
regions that speak against it. The stronger the effect, the more opaque the colour.
"""

import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Planes: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]

Colour: TypeAlias = tuple[int, int, int]

INVESTIGATIONAL: Final = "AI - INVESTIGATIONAL"
RESEARCH_USE_ONLY: Final = "Research use only."
SUPPORTS: Final = "supports"
AGAINST: Final = "against"
UNIT: Final = ("change", "of logit")

# Percentiles of a series that become black and white: noise dark, fat and vessels just not clipped.
BLACK_PERCENTILE: Final = 2.0
WHITE_PERCENTILE: Final = 99.7
# Every so many voxels are enough for percentiles of a whole series.
PERCENTILE_STRIDE: Final = 7

# Effect as a share of the largest -> colour; as fMRI overlays are drawn, and told apart by the
# colour-blind.
Stops: TypeAlias = tuple[tuple[float, Colour], ...]
WARM: Final[Stops] = ((0.0, (150, 0, 0)), (0.5, (255, 90, 0)), (1.0, (255, 225, 60)))
COOL: Final[Stops] = ((0.0, (0, 20, 150)), (0.5, (0, 120, 255)), (1.0, (110, 235, 255)))
# Opacity of the largest effect: anatomy has to show through.
OPAQUE: Final = 0.75
# Below this share of the largest effect nothing is drawn; above it opacity grows linearly.
FAINTEST: Final = 0.06
# Levels on each side of zero.
LEVELS: Final = 255

SMALLEST_TEXT: Final = 10
# Lines of text that the smaller side of an image would hold.
LINES_PER_IMAGE: Final = 23
# Room for the colours themselves, in lines of text.
LEAST_BAR_LINES: Final = 4
BAR_GREY: Final = 60
TEXT_GREY: Final = (205, 205, 205)
WARNING_YELLOW: Final = (255, 214, 0)


@dataclass(frozen=True)
class Window:
    """Intensities that become black and white, for a whole series."""

    black: float
    white: float

    def grey(self, plane: Planes) -> Bytes:
        """The anatomy as 8-bit grey."""
        grey: Bytes = np.interp(plane, (self.black, self.white), (0, 255)).astype(np.uint8)
        return grey


def window(planes: Planes) -> Window:
    """A window from robust percentiles of all planes of a series."""
    some = planes.reshape(-1)[::PERCENTILE_STRIDE]
    black, white = np.percentile(some, (BLACK_PERCENTILE, WHITE_PERCENTILE))
    return Window(float(black), float(white))


def rounded_up(value: float) -> float:
    """The next number of two digits, so that the ends of the colour bar are what they say.

    >>> rounded_up(0.4213), rounded_up(12.0), rounded_up(0.0)
    (0.43, 12.0, 0.0)
    """
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step - 1e-9) * step:.2g}")


@dataclass(frozen=True)
class Colours:
    """How effects are coloured, for a whole series.

    Attributes:
        largest: effect in log odds at the ends of the colour bar; 0 where nothing had any effect.
    """

    largest: float

    def rgba(self, effect: Planes, visible: Planes | None = None) -> Bytes:
        """The map alone, transparent where nothing happened.

        Args:
            effect: (...) in log odds.
            visible: (...) share of the opacity to keep, 0..1; all of it if absent.

        Returns:
            (..., 4).
        """
        coloured: Bytes = self._table.view(np.uint32)[self._levels(effect)].view(np.uint8)
        if visible is not None:
            coloured[..., 3] = np.rint(coloured[..., 3] * visible)
        return coloured

    def _levels(self, effect: Planes) -> NDArray[np.intp]:
        share = effect / self.largest if self.largest else np.zeros_like(effect)
        return np.rint(np.clip(share, -1, 1) * LEVELS).astype(np.intp) + LEVELS

    @cached_property
    def _table(self) -> Bytes:
        """(2 LEVELS + 1, 4): colour and opacity of each level."""
        share = np.linspace(-1, 1, 2 * LEVELS + 1)
        warm, cool = _ramp(WARM, np.abs(share)), _ramp(COOL, np.abs(share))
        colour = np.where(share[:, None] > 0, warm, cool)
        visible = np.clip((np.abs(share) - FAINTEST) / (1 - FAINTEST), 0, 1)
        alpha = 255 * OPAQUE * visible**0.6
        table: Bytes = np.rint(np.column_stack([colour, alpha])).astype(np.uint8)
        return table


def _ramp(stops: Stops, at: NDArray[np.float64]) -> NDArray[np.float64]:
    places, colours = zip(*stops, strict=True)
    return np.column_stack(
        [np.interp(at, places, channel) for channel in zip(*colours, strict=True)]
    )


def blend(grey: Bytes, rgba: Bytes) -> Bytes:
    """Anatomy with the map over it: (rows, columns, 3)."""
    alpha = rgba[..., 3:].astype(np.uint16)
    under = grey[..., None].astype(np.uint16) * (255 - alpha)
    shade = under + rgba[..., :3] * alpha + 128
    # Divided by 255 and rounded, in integers: exact up to 255 * 255.
    blended: Bytes = ((shade + (shade >> 8)) >> 8).astype(np.uint8)
    return blended


def png(image: Bytes) -> bytes:
    """Grey, RGB or RGBA as a PNG file without any metadata."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()


@dataclass(frozen=True, eq=False)
class Frame:
    """An empty picture with its margins drawn; the anatomy goes to the upper left.

    Attributes:
        canvas: (rows + bottom margin, columns + right margin, 3).
    """

    canvas: Bytes

    def around(self, picture: Bytes) -> Bytes:
        """The picture within its margins."""
        framed = self.canvas.copy()
        framed[: picture.shape[0], : picture.shape[1]] = picture
        return framed


def frame(rows: int, columns: int, colours: Colours, caption: str) -> Frame:
    """Draw the margins: the colour bar at the right, what this is and is not at the bottom.

    Args:
        rows: of the images.
        columns: of the images.
        colours: to explain by the bar.
        caption: what else is to be said of the map.
    """
    text = _Text(max(SMALLEST_TEXT, min(rows, columns) // LINES_PER_IMAGE))
    column = max(columns, text.width(INVESTIGATIONAL) + text.line)
    bar = _Bar(colours, text, left=column + text.line // 2)
    width = column + bar.width + text.line
    # The bar of a small image reaches further down than the image: the caption then stays beside.
    room = width if bar.least_height <= rows else column
    lines = text.wrapped(f"{RESEARCH_USE_ONLY} {caption}", room - text.line)
    height = max(rows + (len(lines) + 2) * text.line, bar.least_height)
    canvas = Image.new("RGB", (width, height))
    bar.draw(canvas, max(rows, bar.least_height))
    text.write(canvas, text.line // 2, rows + text.line // 2, [INVESTIGATIONAL], WARNING_YELLOW)
    text.write(canvas, text.line // 2, rows + text.line * 3 // 2, lines, TEXT_GREY)
    return Frame(np.asarray(canvas))


class _Text:
    """One size of lettering."""

    def __init__(self, size: int) -> None:
        self.font = ImageFont.load_default(size)
        self.line = size + size // 3

    def width(self, text: str) -> int:
        return math.ceil(self.font.getlength(text))

    def wrapped(self, text: str, width: int) -> list[str]:
        """The text in lines that are no wider than this, as far as its words allow."""
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.width(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines

    def write(
        self, canvas: Image.Image, left: int, top: int, lines: Sequence[str], colour: Colour
    ) -> None:
        draw = ImageDraw.Draw(canvas)
        for number, text in enumerate(lines):
            draw.text((left, top + number * self.line), text, fill=colour, font=self.font)


class _Bar:
    """The colour bar with its legend, in the right margin."""

    def __init__(self, colours: Colours, text: _Text, left: int) -> None:
        self.colours, self.text, self.left = colours, text, left
        self.thickness = text.line
        largest = f"{colours.largest:.2g}"
        self.ticks = (f"+{largest}", "0", f"-{largest}") if colours.largest else ("", "0", "")
        self.width = max(
            *map(text.width, (SUPPORTS, AGAINST, *UNIT)),
            self.thickness + text.line // 2 + max(map(text.width, self.ticks)),
        )

    @property
    def least_height(self) -> int:
        """Room for the bar itself, what stands above and below it, and the unit."""
        return (LEAST_BAR_LINES + 5 + len(UNIT)) * self.text.line

    def draw(self, canvas: Image.Image, height: int) -> None:
        """Draw the bar and its legend over the height of the picture."""
        line = self.text.line
        top = 2 * line
        bottom = height - (2 + len(UNIT)) * line - line // 2
        share = np.linspace(1, -1, bottom - top, dtype=np.float32)
        shades = blend(
            np.full((bottom - top, self.thickness), BAR_GREY, np.uint8),
            np.repeat(self.colours.rgba(share * self.colours.largest)[:, None], self.thickness, 1),
        )
        canvas.paste(Image.fromarray(shades), (self.left, top))
        beside = self.left + self.thickness + line // 3
        for text, place in zip(self.ticks, (top, (top + bottom) // 2, bottom), strict=True):
            self.text.write(canvas, beside, place - line // 2, [text], TEXT_GREY)
        self.text.write(canvas, self.left, top - line * 3 // 2, [SUPPORTS], WARM[1][1])
        self.text.write(canvas, self.left, bottom + line // 2, [AGAINST], COOL[1][1])
        self.text.write(canvas, self.left, bottom + 2 * line, UNIT, TEXT_GREY)
