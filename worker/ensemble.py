"""Members -> calibrated probability, disagreement, out-of-distribution score."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.nets.densenet import DenseNet
from numpy.typing import NDArray
from scipy import special
from torch import Tensor, nn

from worker import nets
from worker.bundle import (
    NOT_SUGGESTED,
    SUGGESTED,
    Bundle,
    Reference,
    VolumeBundle,
    load_reference,
    member_weights,
    reference_keys,
)
from worker.preprocess import Prepared
from worker.seal import BadBundle


class Band(enum.Enum):
    """What the probability means. There is no "absent": a low score does not exclude."""

    SUGGESTED = SUGGESTED
    NOT_SUGGESTED = NOT_SUGGESTED
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class Score:
    """What members say of what they looked at.

    Attributes:
        probability: 0..1, mean of the members' calibrated probabilities.
        members: calibrated probability of each member.
        disagreement: population standard deviation of the members' probabilities.
        ood_percentile: 0..100, share of the training cohort that looks less unusual.
    """

    probability: float
    members: tuple[float, ...]
    disagreement: float
    ood_percentile: float


@dataclass(frozen=True)
class Prediction(Score):
    """What the ensemble says about one study.

    Attributes:
        conformal: the labels, "suggested" and "not suggested", that cannot be ruled out.
        band: by the rule of `band`.
    """

    conformal: frozenset[str]
    band: Band


class Ensemble:
    """The members of one bundle, warm on one device."""

    def __init__(self, bundle: VolumeBundle, device: torch.device | str = "cpu") -> None:
        """Load all members.

        Raises:
            BadBundle: weights are missing, altered or do not fit the network.
        """
        self.bundle = bundle
        self.device = torch.device(device)
        self._references = load_reference(bundle.folder, reference_keys(len(bundle.members)))
        self._members = tuple(
            self._load(weights) for weights in member_weights(bundle.folder, bundle.members)
        )

    @property
    def networks(self) -> tuple[DenseNet, ...]:
        """The members, in evaluation mode on the device."""
        return self._members

    def predict(self, prepared: Prepared) -> Prediction:
        """Judge one prepared volume."""
        batch = self.batch(prepared.voxels[None])
        with torch.inference_mode():
            pooled = [nets.features(member, batch) for member in self._members]
            odds = [
                nets.log_odds(member, each)
                for member, each in zip(self._members, pooled, strict=True)
            ]
        found = score(
            torch.cat(odds).double().cpu().numpy(),
            self.bundle.temperatures,
            [each[0].double().cpu().numpy() for each in pooled],
            self._references,
        )
        return concluded(found, self.bundle)

    def logits(self, batch: Tensor) -> NDArray[np.float64]:
        """Uncalibrated fistula logits (log odds), (members, N), of a (N, 1, X, Y, Z) batch."""
        return np.stack([self.member_logits(each, batch) for each in range(len(self._members))])

    def member_logits(self, number: int, batch: Tensor) -> NDArray[np.float64]:
        """The same of one member, (N,)."""
        member = self._members[number]
        with torch.inference_mode():
            odds = nets.log_odds(member, nets.features(member, batch))
        return odds.double().cpu().numpy()

    def batch(self, voxels: NDArray[np.float32]) -> Tensor:
        """(N, X, Y, Z) voxels as a batch on the device, laid out as the members like it."""
        tensor = torch.from_numpy(np.ascontiguousarray(voxels))[:, None].to(self.device)
        return tensor.contiguous(memory_format=torch.channels_last_3d)

    def _load(self, weights: dict[str, Tensor]) -> DenseNet:
        network = nets.build(self.bundle.network.name, **self.bundle.network.config)
        put_weights(network, weights, self.bundle)
        return network.to(self.device).eval().requires_grad_(False)


def put_weights(network: nn.Module, weights: dict[str, Tensor], bundle: Bundle) -> None:
    """Give a network the weights of a member.

    Raises:
        BadBundle: they do not fit.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise BadBundle(
            bundle.folder, f"weights that do not fit ({error})", bundle.network.name
        ) from error


def score(
    log_odds: NDArray[np.float64],
    temperatures: Sequence[float],
    vectors: list[NDArray[np.float64]],
    references: tuple[Reference, ...],
) -> Score:
    """Put together what each member found.

    Args:
        log_odds: (members,) uncalibrated.
        temperatures: one per member.
        vectors: (F,) features of the study, one per member.
        references: one per member.
    """
    members = calibrate(log_odds, np.array(temperatures))
    return Score(
        probability=float(members.mean()),
        members=tuple(float(each) for each in members),
        disagreement=float(members.std()),
        ood_percentile=ood_percentile(vectors, references),
    )


def concluded(found: Score, bundle: Bundle) -> Prediction:
    """What a score means by the limits of its bundle."""
    labels = conformal_set(found.probability, bundle)
    return Prediction(
        **vars(found),
        conformal=labels,
        band=band(found.probability, found.ood_percentile, labels, bundle),
    )


def calibrate(
    log_odds: NDArray[np.float64], temperature: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log odds -> probabilities, softened by the temperature (Guo et al., ICML 2017).

    Args:
        log_odds: of any shape.
        temperature: one for all, or of a shape that broadcasts: (members,) for (members,) odds.

    >>> calibrate(np.array([0.0, 2.0]), temperature=2.0).round(3).tolist()
    [0.5, 0.731]
    >>> calibrate(np.array([2.0, 2.0]), np.array([1.0, 2.0])).round(3).tolist()
    [0.881, 0.731]
    """
    probabilities: NDArray[np.float64] = special.expit(log_odds / temperature)
    return probabilities


def mahalanobis(
    vectors: NDArray[np.float64], mean: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance of each of (N, F) vectors from a cohort (Lee et al., NeurIPS 2018)."""
    offset = vectors - mean
    squares = np.einsum("nf,fg,ng->n", offset, precision, offset)
    distances: NDArray[np.float64] = np.sqrt(np.maximum(squares, 0))
    return distances


def ood_percentile(vectors: list[NDArray[np.float64]], references: tuple[Reference, ...]) -> float:
    """Mean over members of the percentile of a study's distance among unseen training cases.

    Args:
        vectors: (F,) features of the study, one per member.
        references: one per member.
    """
    shares = []
    for vector, reference in zip(vectors, references, strict=True):
        distance = mahalanobis(vector[None], reference.mean, reference.precision)[0]
        rank = np.searchsorted(reference.distances, distance, side="right")
        shares.append(100.0 * float(rank) / reference.distances.size)
    return float(np.mean(shares))


def conformal_set(probability: float, bundle: Bundle) -> frozenset[str]:
    """Labels that are not too unusual for their own class (class-conditional conformal)."""
    nonconformity = {SUGGESTED: 1 - probability, NOT_SUGGESTED: probability}
    return frozenset(
        label for label, value in nonconformity.items() if value <= bundle.conformal[label]
    )


def band(probability: float, percentile: float, labels: frozenset[str], bundle: Bundle) -> Band:
    """Apply the wording rule R7: a doubt of any kind makes the result undetermined."""
    if percentile > bundle.ood_limit or len(labels) != 1:
        return Band.UNDETERMINED
    if probability >= bundle.threshold_high:
        return Band.SUGGESTED
    if probability < bundle.threshold_low:
        return Band.NOT_SUGGESTED
    return Band.UNDETERMINED
