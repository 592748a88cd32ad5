"""Figures of the report; each function draws one and returns it as PNG.

Colours are those of Okabe and Ito (2008), which remain apart for colour-blind eyes; what they part
is also parted by line style or by words. Volumes have their axes in the order right, anterior,
superior; planes are shown as radiologists hang them: the patient's right on the left of the image,
anterior on the left of sagittal planes, superior or anterior at the top.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from numpy.typing import NDArray

from trainer.flow import Step
from trainer.statistics import Roc

Values: TypeAlias = NDArray[np.floating]
Index: TypeAlias = tuple[int, int, int]

BLACK: Final = "#000000"
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
GREEN: Final = "#009E73"
BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
GREY: Final = "#8A8A8A"
PALE: Final = "#EEF2F6"
SLATE: Final = "#5A6B7B"
SERIES: Final = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
STYLES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

# Legible when printed at the width of a page, and small enough to be mailed inside of a report.
DPI: Final = 150
# Effects of a patch: speaks against the finding, nothing, speaks for it.
EFFECT: Final = LinearSegmentedColormap.from_list("effect", [BLUE, "#FFFFFF", VERMILLION])
# Effects weaker than this share of the strongest are left clear, so that anatomy shows.
FAINT: Final = 0.1
OPAQUE: Final = 0.8


@dataclass(frozen=True, eq=False)
class Curve:
    """A line with its name in the legend."""

    name: str
    roc: Roc


@dataclass(frozen=True, eq=False)
class Band:
    """An interval around a curve: sensitivity from low to high at each false positive rate."""

    false_positive_rate: Values
    low: Values
    high: Values


@dataclass(frozen=True, eq=False)
class Reliability:
    """One panel of a reliability plot.

    Attributes:
        name: above the panel.
        predicted: (bins,) mean probability.
        observed: (bins,) share of positives.
        low: (bins,) of the interval around it.
        high: (bins,).
        probabilities: (N,) of all exams, for the histogram.
    """

    name: str
    predicted: Values
    observed: Values
    low: Values
    high: Values
    probabilities: Values


@dataclass(frozen=True)
class Bar:
    """One row of a forest plot; without a value it is listed as too few."""

    group: str
    name: str
    value: float | None
    low: float
    high: float
    note: str


@dataclass(frozen=True, eq=False)
class Shown:
    """Three planes of a volume with the effects of occluding it: sagittal, coronal, axial.

    Attributes:
        images: a plane across each axis, as it is hung.
        effects: the same planes of the effects, in logits.
        at: (column, row) of the position in each plane.
        aspects: height of a pixel over its width, in each plane.
        white: intensity shown white.
        strongest: largest effect either way, in the whole volume, above 0.
    """

    images: tuple[Values, ...]
    effects: tuple[Values, ...]
    at: tuple[tuple[int, int], ...]
    aspects: tuple[float, ...]
    white: float
    strongest: float


def show(
    voxels: Values, effects: Values, at: Index, spacing_mm: tuple[float, float, float]
) -> Shown:
    """Lay planes through a position.

    Args:
        voxels: (X, Y, Z).
        effects: (X, Y, Z), in logits, at each voxel.
        at: the voxel where the planes meet.
        spacing_mm: of the voxels.
    """
    inside = voxels[voxels > 0]
    return Shown(
        images=tuple(_plane(voxels, axis, at[axis]) for axis in range(3)),
        effects=tuple(_plane(effects, axis, at[axis]) for axis in range(3)),
        at=tuple(_in_plane(voxels.shape, at, axis) for axis in range(3)),
        aspects=tuple(_aspect(spacing_mm, axis) for axis in range(3)),
        # Few voxels are brighter.
        white=float(np.percentile(inside, 99.5)) if inside.size else 1.0,
        strongest=max(float(np.abs(effects).max()), float(np.finfo(np.float32).tiny)),
    )


def flow(steps: Sequence[Step]) -> bytes:
    """Boxes from top to bottom, what was excluded beside them (CONSORT)."""
    drops = [0.0, *(BOX + max(GAP, _excluded_height(step) + 2 * MARGIN) for step in steps[1:])]
    deep = sum(drops) + BOX
    figure = _figure(7.6, INCH_PER_UNIT * deep)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 10), ylim=(-deep - 0.05, 0.05))
    axes.axis("off")
    top = 0.0
    for step, drop in zip(steps, drops, strict=True):
        if drop:
            _exclusions(axes, step, top - BOX, top - drop)
        top -= drop
        _box(axes, 0.1, top - BOX, 5.0, BOX, f"{textwrap.fill(step.stage, 44)}\n{_count(step)}")
    return png(figure)


def roc_folds(curves: Sequence[Curve], title: str) -> bytes:
    """One curve per fold, as in figure 2 of Faghani et al. 2024."""
    figure, axes = _square()
    for number, curve in enumerate(curves):
        _step(axes, curve, SERIES[number % len(SERIES)], STYLES[number % len(STYLES)])
    _finish_roc(axes, title)
    return png(figure)


def roc_pooled(curve: Curve, band: Band, marks: Mapping[str, tuple[float, float]]) -> bytes:
    """One curve with its band, and operating points by name: (sensitivity, specificity)."""
    figure, axes = _square()
    axes.fill_between(
        band.false_positive_rate,
        band.low,
        band.high,
        color=SKY,
        alpha=0.35,
        linewidth=0,
        label="95 % bootstrap band, patients drawn",
    )
    _step(axes, curve, BLUE, "-")
    for (name, (sensitivity, specificity)), shape in zip(marks.items(), "osD^v", strict=False):
        axes.plot(
            1 - specificity,
            sensitivity,
            shape,
            color=VERMILLION,
            markersize=7,
            label=name,
            zorder=4,
        )
    _finish_roc(axes, "")
    return png(figure)


def roc_comparison(curves: Sequence[Curve]) -> bytes:
    """Model and Bern score on the same patients."""
    figure, axes = _square()
    for curve, colour, style in zip(curves, (BLUE, ORANGE, PURPLE), ("-", "--", ":"), strict=False):
        _step(axes, curve, colour, style)
    _finish_roc(axes, "")
    return png(figure)


def reliability(panels: Sequence[Reliability]) -> bytes:
    """Predicted against observed, one panel per stage, with where the predictions lie below."""
    figure = _figure(3.6 * len(panels), 4.6)
    grid = figure.add_gridspec(2, len(panels), height_ratios=(4, 1), hspace=0.12, wspace=0.28)
    for column, panel in enumerate(panels):
        axes = figure.add_subplot(grid[0, column])
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
        errors = np.clip([panel.observed - panel.low, panel.high - panel.observed], 0, 1)
        axes.errorbar(
            panel.predicted,
            panel.observed,
            yerr=errors,
            color=BLUE,
            marker="o",
            markersize=5,
            linewidth=1.2,
            capsize=2,
            label="quantile bins, 95 %",
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), title=panel.name, xticklabels=[])
        axes.set_ylabel("share of positives" if column == 0 else "")
        axes.legend(loc="upper left", frameon=False)
        below = figure.add_subplot(grid[1, column])
        below.hist(panel.probabilities, bins=20, range=(0, 1), color=SKY, edgecolor="white")
        below.set(xlim=(0, 1), xlabel="predicted probability")
        below.set_ylabel("exams" if column == 0 else "")
    return png(figure)


def separation(
    labels: NDArray[np.int64], probabilities: Values, thresholds: Sequence[float]
) -> bytes:
    """Calibrated probability of every exam, by label, and the thresholds of the statement."""
    figure, axes = _axes(6.4, 2.6)
    jitter = np.random.default_rng(0).uniform(-0.28, 0.28, labels.size)
    for label, colour, shape in ((0, BLUE, "o"), (1, VERMILLION, "^")):
        chosen = labels == label
        axes.scatter(
            probabilities[chosen],
            label + jitter[chosen],
            s=22,
            marker=shape,
            color=colour,
            alpha=0.65,
            linewidth=0,
        )
    for threshold in sorted(set(thresholds)):
        axes.axvline(threshold, color=BLACK, linestyle="--", linewidth=1)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.5, 1.5), xlabel="calibrated probability")
    axes.set_yticks([0, 1], ["negative", "positive"])
    return png(figure)


def predictive_values(
    prevalences: Values, curves: Mapping[str, tuple[Values, Values]], here: float
) -> bytes:
    """PPV and NPV of each operating point by prevalence; `here` is the cohort's."""
    figure, axes = _axes(6.4, 3.6)
    for (name, (ppv, npv)), style in zip(curves.items(), STYLES, strict=False):
        axes.plot(prevalences, ppv, color=VERMILLION, linestyle=style, label=f"PPV, {name}")
        axes.plot(prevalences, npv, color=BLUE, linestyle=style, label=f"NPV, {name}")
    axes.axvline(here, color=GREY, linewidth=1, linestyle=":", label="prevalence in this cohort")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="prevalence", ylabel="predictive value")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return png(figure)


def conformal(shares: Mapping[str, Mapping[str, float]]) -> bytes:
    """What the sets of each class hold, in shares of the class."""
    kinds = list(dict.fromkeys(kind for each in shares.values() for kind in each))
    figure, axes = _axes(6.4, 0.75 * len(shares) + 1.5)
    start = np.zeros(len(shares))
    for kind, colour in zip(kinds, (GREEN, VERMILLION, SKY, GREY), strict=False):
        widths = np.array([each.get(kind, 0.0) for each in shares.values()])
        axes.barh(
            list(shares),
            widths,
            left=start,
            color=colour,
            label=kind,
            height=0.6,
            edgecolor="white",
        )
        for row, (left, width) in enumerate(zip(start, widths, strict=True)):
            if width >= 0.06:
                axes.text(left + width / 2, row, f"{width:.0%}", ha="center", va="center")
        start += widths
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of the class")
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, columnspacing=1.2
    )
    return png(figure)


def decision_curve(thresholds: Values, benefits: Mapping[str, Values]) -> bytes:
    """Net benefit of acting by the model, on all and on none."""
    figure, axes = _axes(6.4, 3.6)
    for (name, benefit), colour, style in zip(benefits.items(), SERIES, STYLES, strict=False):
        axes.plot(thresholds, benefit, color=colour, linestyle=style, label=name)
    top = max(float(np.nanmax(benefit)) for benefit in benefits.values())
    axes.set(
        xlim=(float(thresholds[0]), float(thresholds[-1])),
        ylim=(-0.1, 1.1 * max(top, 0.1)),
        xlabel="threshold probability at which a myelogram is worth doing",
        ylabel="net benefit",
    )
    axes.legend(frameon=False)
    return png(figure)


def forest(bars: Sequence[Bar], whole: float) -> bytes:
    """AUROC of each subgroup with its interval; `whole` is that of all exams."""
    groups = list(dict.fromkeys(bar.group for bar in bars))
    rows = len(bars) + len(groups)
    figure, axes = _axes(7.4, 0.26 * rows + 0.9)
    row = 0
    ticks: list[tuple[int, str]] = []
    for group in groups:
        axes.text(
            -0.02,
            row,
            _wrapped(group, 34),
            fontweight="bold",
            ha="right",
            va="center",
            transform=axes.get_yaxis_transform(),
        )
        row += 1
        for bar in (each for each in bars if each.group == group):
            ticks.append((row, bar.name))
            _forest_row(axes, bar, row)
            row += 1
    axes.axvline(whole, color=GREY, linestyle="--", linewidth=1)
    axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
    axes.set_yticks([at for at, _ in ticks], [textwrap.shorten(name, 34) for _, name in ticks])
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 1.0), ylim=(row - 0.4, -0.6), xlabel="AUROC (dashed: all exams)")
    axes.spines["left"].set_visible(False)
    return png(figure)


def learning_curves(
    folds: Mapping[str, Sequence[Mapping[str, Any]]], best: Mapping[str, int]
) -> bytes:
    """Loss and AUROC on the held-out exams by epoch, one column per fold."""
    figure = _figure(max(6.4, 2.35 * len(folds)), 4.2)
    axes = figure.subplots(2, len(folds), sharex="col", sharey="row", squeeze=False)
    for column, (name, epochs) in enumerate(folds.items()):
        at = _series(epochs, "epoch")
        loss, auroc = axes[0, column], axes[1, column]
        loss.plot(at, _series(epochs, "loss"), color=BLUE, label="training")
        loss.plot(
            at, _series(epochs, "validation_loss"), color=VERMILLION, ls="--", label="held out"
        )
        auroc.plot(at, _series(epochs, "auroc"), color=GREEN, label="weights of the epoch")
        auroc.plot(at, _series(epochs, "ema_auroc"), color=PURPLE, ls="--", label="moving average")
        auroc.axvline(best[name], color=GREY, linestyle=":", linewidth=1)
        loss.set_title(name)
        auroc.set(xlabel="epoch", ylim=(0, 1.02))
    axes[0, 0].set_ylabel("cross-entropy")
    axes[1, 0].set_ylabel("AUROC, held out")
    axes[0, 0].legend(frameon=False)
    axes[1, 0].legend(frameon=False, loc="lower right")
    figure.set_layout_engine("constrained")
    return png(figure)


def mean_map(shown: Shown) -> bytes:
    """Mean volume under mean effects, and the effects alone, in three planes."""
    figure = _figure(7.4, 4.8)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(2, 3)
    for column, (axis, name) in enumerate(((0, "sagittal"), (1, "coronal"), (2, "axial"))):
        _anatomy(axes[0, column], shown, axis, name)
        _overlay(axes[0, column], shown, axis)
        _mask(axes[1, column], shown, axis)
    _effect_bar(figure, list(axes.ravel()), shown.strongest)
    return png(figure)


def planes(shown: Shown) -> bytes:
    """Three planes through a position, effects overlaid: one case of the gallery."""
    figure = _figure(7.4, 2.5)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, 3)
    for column, (axis, name) in enumerate(((0, "sagittal"), (1, "coronal"), (2, "axial"))):
        _anatomy(axes[column], shown, axis, name)
        _overlay(axes[column], shown, axis)
        _crosshair(axes[column], shown, axis)
    _effect_bar(figure, list(axes), shown.strongest)
    return png(figure)


def crops(images: Values, within: NDArray[np.bool_]) -> bytes:
    """The crops of one region, from below, the region outlined: one case of the gallery.

    Args:
        images: (M, side, side).
        within: the same, inside the region.
    """
    figure = _figure(1.85 * len(images), 2.0)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, len(images), squeeze=False)[0]
    for canvas, image, region in zip(axes, images, within, strict=True):
        canvas.imshow(image, cmap="gray")
        canvas.contour(region, levels=[0.5], colors=[ORANGE], linewidths=0.8)
        canvas.set_axis_off()
    return png(figure)


def three_part(shown: Shown) -> bytes:
    """Sagittal image, occlusion mask over it, mask alone: figure 3 of Faghani et al. 2024."""
    figure = _figure(7.4, 2.5)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, 3)
    _anatomy(axes[0], shown, 0, "A")
    _anatomy(axes[1], shown, 0, "B")
    _overlay(axes[1], shown, 0)
    _mask(axes[2], shown, 0)
    axes[2].set_title("C")
    _effect_bar(figure, list(axes), shown.strongest)
    return png(figure)


def pipeline(
    volume: Values,
    variants: Sequence[Values],
    network: str,
    members: int,
    spacing_mm: tuple[float, float, float],
) -> bytes:
    """Volume, preparation and augmentation, networks, prediction: figure 1 of the paper."""
    figure = _figure(8.6, 2.3)
    for number, axis in enumerate((2, 1, 0)):  # a pile of planes, the sagittal one on top
        axes = figure.add_axes((0.005 + 0.034 * number, 0.44 - 0.11 * number, 0.155, 0.53))
        _image(axes, _plane(volume, axis, volume.shape[axis] // 2), _aspect(spacing_mm, axis))
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="white", linewidth=1.5)
    for number, variant in enumerate(variants[:4]):
        left, bottom = 0.30 + 0.105 * (number % 2), 0.585 - 0.39 * (number // 2)
        axes = figure.add_axes((left, bottom, 0.10, 0.38))
        _image(axes, _plane(variant, 0, variant.shape[0] // 2), _aspect(spacing_mm, 0))
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, 1), ylim=(0, 1))
    canvas.axis("off")
    canvas.patch.set_alpha(0)
    _networks(canvas, network, members)
    stages = [
        (0.12, "prepared CE-T1 volume"),
        (0.645, "3D networks"),
        (0.895, "leak on myelography"),
    ]
    arrows = [(0.24, 0.55), (0.752, 0.79)]
    if variants:
        stages.insert(1, (0.4025, "augmented in training"))
        arrows[:1] = [(0.24, 0.288), (0.518, 0.55)]
    for letter, (x, caption) in zip("ABCD", stages, strict=False):
        canvas.text(x, 0.0, f"{letter}  {caption}", ha="center", va="bottom", fontsize=9)
    for start, end in arrows:
        canvas.add_patch(_arrow((start, 0.56), (end, 0.56)))
    return png(figure)


def png(figure: Figure) -> bytes:
    """A figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()


# --- drawing ---


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, free of pyplot's global state."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _figure(width, height)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _square() -> tuple[Figure, Axes]:
    figure, axes = _axes(5.0, 5.0)
    axes.set_aspect("equal")
    return figure, axes


def _step(axes: Axes, curve: Curve, colour: str, style: Any) -> None:
    axes.plot(
        curve.roc.false_positive_rate,
        curve.roc.sensitivity,
        color=colour,
        linestyle=style,
        linewidth=1.8,
        label=curve.name,
    )


def _finish_roc(axes: Axes, title: str) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    axes.set(
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        xlabel="1 - specificity (false positive rate)",
        ylabel="sensitivity (true positive rate)",
        title=title,
    )
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=8.5)


def _forest_row(axes: Axes, bar: Bar, row: int) -> None:
    if bar.value is None:
        axes.text(0.02, row, "too few", va="center", color="#666666", style="italic", fontsize=8.5)
    else:
        axes.plot([bar.low, bar.high], [row, row], color=BLUE, linewidth=1.4)
        axes.plot(bar.value, row, "s", color=BLUE, markersize=5)
    axes.text(1.02, row, bar.note, va="center", fontsize=8.5, transform=axes.get_yaxis_transform())


def _series(epochs: Sequence[Mapping[str, Any]], name: str) -> Values:
    """One number of every epoch; not a number where an epoch lacks it."""
    values = [each.get(name) for each in epochs]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


# --- the flow's boxes, in units of a tenth of the width ---

BOX: Final = 1.0
GAP: Final = 0.7
MARGIN: Final = 0.15
LINE: Final = 0.29
INCH_PER_UNIT: Final = 0.62


def _exclusion_words(step: Step) -> list[str]:
    """What was excluded on the way to a step, one line each."""
    if not step.excluded:
        return []
    lines = [f"excluded: {sum(step.excluded.values())}"]
    for reason, count in step.excluded.items():
        lines += textwrap.wrap(f"{count}  {reason}", 46, subsequent_indent="      ")
    return lines


def _excluded_height(step: Step) -> float:
    lines = _exclusion_words(step)
    return LINE * len(lines) + 0.25 if lines else 0.0


def _exclusions(axes: Axes, step: Step, above: float, below: float) -> None:
    """The arrow down to a step's box, and beside it what was taken out."""
    axes.add_patch(_arrow((2.6, above), (2.6, below)))
    if lines := _exclusion_words(step):
        middle, tall = (above + below) / 2, _excluded_height(step)
        axes.add_patch(_arrow((2.6, middle), (5.5, middle)))
        _box(axes, 5.5, middle - tall / 2, 4.45, tall, "\n".join(lines), "white", left=True)


def _box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str,
    fill: str = PALE,
    left: bool = False,
) -> None:
    shape = FancyBboxPatch(
        (x, y),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=fill,
        edgecolor=SLATE,
        linewidth=1,
    )
    axes.add_patch(shape)
    at = x + 0.15 if left else x + width / 2
    axes.text(at, y + height / 2, text, ha="left" if left else "center", va="center", fontsize=9)


def _count(step: Step) -> str:
    return f"{step.exams} exams of {step.patients} patients"


def _wrapped(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder="…")


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> FancyArrowPatch:
    return FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=12, color=SLATE, shrinkA=0, shrinkB=0
    )


def _networks(canvas: Axes, network: str, members: int) -> None:
    """Members as a pile of boxes, each a few dense blocks, and their mean."""
    for number in reversed(range(min(members, 5))):
        x, y = 0.557 + 0.012 * number, 0.38 + 0.035 * number
        canvas.add_patch(Rectangle((x, y), 0.13, 0.36, facecolor=PALE, edgecolor=SLATE))
    for block, height in enumerate((0.27, 0.21, 0.15, 0.10)):
        at = (0.569 + 0.028 * block, 0.56 - height / 2)
        canvas.add_patch(Rectangle(at, 0.018, height, facecolor=(SKY, BLUE, GREEN, ORANGE)[block]))
    canvas.text(0.645, 0.24, f"{members} x {network}", ha="center", va="center", fontsize=9)
    for name, y, width, colour in (
        ("found", 0.64, 0.11, VERMILLION),
        ("not found", 0.40, 0.05, BLUE),
    ):
        canvas.add_patch(Rectangle((0.885, y), width, 0.11, facecolor=colour))
        canvas.text(0.878, y + 0.055, name, ha="right", va="center", fontsize=8.5)
    canvas.text(0.895, 0.24, "mean of the probabilities", ha="center", va="center", fontsize=9)


# --- planes ---


def _plane(volume: Values, axis: int, index: int) -> Values:
    """A plane with its rows upwards and its columns running to the left."""
    plane: Values = np.take(volume, index, axis).T[:, ::-1]
    return plane


def _aspect(spacing_mm: tuple[float, float, float], axis: int) -> float:
    """Height of a pixel of a plane over its width."""
    across, up = (spacing for other, spacing in enumerate(spacing_mm) if other != axis)
    return up / across


def _image(axes: Axes, plane: Values, aspect: float, white: float | None = None) -> None:
    axes.imshow(plane, origin="lower", aspect=aspect, cmap="gray", vmin=0, vmax=white)
    axes.set_axis_off()


def _anatomy(axes: Axes, shown: Shown, axis: int, title: str) -> None:
    _image(axes, shown.images[axis], shown.aspects[axis], shown.white)
    axes.set_title(title)


def _overlay(axes: Axes, shown: Shown, axis: int) -> None:
    effects = shown.effects[axis] / shown.strongest
    colours = np.empty((*effects.shape, 4))
    colours[..., :3] = np.where(effects[..., None] > 0, to_rgb(VERMILLION), to_rgb(BLUE))
    strength = np.clip(np.abs(effects), 0, 1)
    colours[..., 3] = np.where(strength < FAINT, 0, OPAQUE * strength)
    axes.imshow(colours, origin="lower", aspect=shown.aspects[axis], interpolation="bilinear")


def _mask(axes: Axes, shown: Shown, axis: int) -> None:
    axes.imshow(
        shown.effects[axis],
        origin="lower",
        aspect=shown.aspects[axis],
        cmap=EFFECT,
        vmin=-shown.strongest,
        vmax=shown.strongest,
    )
    axes.set_axis_off()


def _crosshair(axes: Axes, shown: Shown, axis: int) -> None:
    column, row = shown.at[axis]
    axes.axvline(column, color="white", linewidth=0.6, linestyle=":")
    axes.axhline(row, color="white", linewidth=0.6, linestyle=":")


def _in_plane(shape: tuple[int, ...], at: Index, axis: int) -> tuple[int, int]:
    """Column and row of a voxel in a plane that `_plane` cut."""
    across, up = (other for other in range(3) if other != axis)
    return shape[across] - 1 - at[across], at[up]


def _effect_bar(figure: Figure, axes: list[Axes], strongest: float) -> None:
    scale = ScalarMappable(Normalize(-strongest, strongest), EFFECT)
    bar = figure.colorbar(scale, ax=axes, fraction=0.025, pad=0.015, shrink=0.85)
    bar.set_label("logits: against, for", fontsize=9)
