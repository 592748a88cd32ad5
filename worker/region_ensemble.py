"""Members that look at regions -> calibrated probability of each region, and of the finding.

Each member judges every crop of a region; its log odds of the patient are their mean
(`mean_logit`), divided by its temperature. The finding's probability is that of the bundle's
decisive region.
"""

import logging
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker import gradcam, nets
from worker.bundle import (
    RegionBundle,
    RegionModels,
    Selected,
    load_reference,
    member_weights,
    reference_keys,
)
from worker.crops import RegionView
from worker.ensemble import Prediction, Score, concluded, put_weights, score
from worker.nets import Planar
from worker.radiomics.extraction import LIBRARY, VERSION
from worker.radiomics.specimen import differing, measure
from worker.radiomics.vector import Provenance, Vector
from worker.seal import BadBundle

log = logging.getLogger(__name__)

SAME_RELEASE: Final = (
    "run it with the release of monro, and its pinned packages, that it was trained with; or "
    "gather its cohort anew with this one, and train again"
)


class RegionEnsemble:
    """The members of one bundle, by region, warm on one device."""

    def __init__(self, bundle: RegionBundle, device: torch.device | str = "cpu") -> None:
        """Load all members.

        Raises:
            BadBundle: weights are missing, altered or do not fit the network.
        """
        self.bundle = bundle
        self.device = torch.device(device)
        self._members = {
            name: tuple(
                self._load(weights) for weights in member_weights(bundle.folder, each.members)
            )
            for name, each in bundle.regions.items()
        }
        self._require_features()
        self._require_same_measure()
        self._references = {
            name: load_reference(bundle.folder, reference_keys(len(each.members), name))
            for name, each in bundle.regions.items()
        }

    def scores(self, views: Mapping[str, RegionView]) -> dict[str, Score]:
        """Judge every region that there is a view of."""
        return {name: self._score(name, view) for name, view in views.items()}

    def prediction(self, scores: Mapping[str, Score]) -> Prediction:
        """What the decisive region makes of the finding."""
        return concluded(scores[self.bundle.decisive], self.bundle)

    def member_log_odds(self, region: str, number: int, view: RegionView) -> NDArray[np.float64]:
        """(N,) uncalibrated log odds of every crop by one member."""
        return self._vectors(region, number, view)[1]

    def heat(self, region: str, view: RegionView) -> NDArray[np.float32]:
        """(N, side, side) Grad-CAM of every crop, mean over members, in log odds."""
        images = self._images(view)
        maps = [
            gradcam.heat(member, images, self._radiomics(region, number, view))
            for number, member in enumerate(self._members[region])
        ]
        found: NDArray[np.float32] = torch.stack(maps).mean(0).float().cpu().numpy()
        return found

    def _score(self, region: str, view: RegionView) -> Score:
        found = [
            self._vectors(region, number, view) for number in range(len(self._members[region]))
        ]
        return score(
            np.array([odds.mean() for _, odds in found]),
            self.bundle.regions[region].temperatures,
            [vectors.mean(axis=0) for vectors, _ in found],
            self._references[region],
        )

    def _vectors(
        self, region: str, number: int, view: RegionView
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of every crop: (N, F) what the member's last layer weighs, and (N,) log odds."""
        member = self._members[region][number]
        with torch.inference_mode():
            vectors = member.features_of(self._images(view), self._radiomics(region, number, view))
            odds = member.log_odds(vectors)
        return vectors.double().cpu().numpy(), odds.double().cpu().numpy()

    def _images(self, view: RegionView) -> Tensor:
        images = torch.from_numpy(view.crops).to(self.device)
        return images.contiguous(memory_format=torch.channels_last)

    def _radiomics(self, region: str, number: int, view: RegionView) -> Tensor | None:
        """(N, K) selected and z-scored, the same for every crop; None where none are weighed."""
        models = self.bundle.regions[region]
        if not models.features:
            return None
        width = self._members[region][number].expected_radiomics
        scaled = scaled_features(view.radiomics, models.features[number], width)
        return torch.from_numpy(scaled).float().to(self.device).expand(len(view.crops), -1)

    def _require_features(self) -> None:
        for name, models in self.bundle.regions.items():
            width = self._members[name][0].expected_radiomics
            most = max((len(each.names) for each in models.features), default=0)
            if most > width or (width and not models.features):
                raise BadBundle(
                    self.bundle.folder,
                    f"{most} features for a member that looks at {name}",
                    f"as many as {self.bundle.network.name} takes here: {width} at most",
                )

    def _require_same_measure(self) -> None:
        """Features are measured here as they were in training.

        Library and configuration must be the same. Another version may be as good: the specimen
        shows it. Where it shows the contrary, not even the same version helps.
        """
        folder, told = self.bundle.folder, self.bundle.measured_with
        if told is None:
            return
        config = self.bundle.recipe.radiomics
        here = Provenance(LIBRARY, VERSION, config.config_hash)
        for what in ("library", "config_hash"):
            if (expected := getattr(here, what)) != (found := getattr(told, what)):
                raise BadBundle(
                    folder,
                    f"features that were measured with {what} {found}",
                    f"{expected}, which is what this worker measures with",
                    SAME_RELEASE,
                )
        if differ := differing(measure(config), told.specimen):
            raise BadBundle(
                folder,
                f"{len(differ)} of {len(told.specimen)} features of the specimen, such as "
                f"{differ[0]}, measured otherwise in training ({told.library} {told.version})",
                f"the values that this worker measures ({here.library} {here.version})",
                SAME_RELEASE,
            )
        if here.version != told.version:
            log.warning(
                "bundle %s: features were measured with %s %s in training and are with %s here; "
                "the specimen's %d are the same",
                self.bundle.name,
                told.library,
                told.version,
                here.version,
                len(told.specimen),
            )

    def _load(self, weights: dict[str, Tensor]) -> Planar:
        network = nets.build_planar(self.bundle.network.name, **self.bundle.network.config)
        put_weights(network, weights, self.bundle)
        return network.to(self.device).eval().requires_grad_(False)


def scaled_features(vector: Vector, selected: Selected, width: int) -> NDArray[np.float64]:
    """(width,) the selected features on their scale in training; 0 fills up.

    Raises:
        KeyError: the vector lacks one of them.
    """
    values = dict(zip(vector.names, vector.values, strict=True))
    chosen = np.array([values[name] for name in selected.names])
    scaled = np.zeros(width)
    scaled[: len(chosen)] = (chosen - selected.mean) / np.array(selected.deviation)
    return scaled


def most_weighed(models: RegionModels, most: int) -> tuple[str, ...]:
    """The features that most members weigh, those of more members first."""
    counts: dict[str, int] = {}
    for selected in models.features:
        for name in selected.names:
            counts[name] = counts.get(name, 0) + 1
    return tuple(sorted(counts, key=lambda name: -counts[name])[:most])
