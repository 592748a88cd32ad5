"""An ensemble on disk: MONAI-Bundle layout, safetensors weights, hash-checked manifest.

    fistula-demo/
      LICENSE
      manifest.json                   sha256 of every other file
      manifest.sig                    who vouches for that, where it was signed (signature.py)
      configs/metadata.json           what MONAI asks for, and under "monro" what the worker reads
      configs/inference.json          for readers: describes the network, is never evaluated
      docs/README.md
      docs/evaluation.html            where the report of an evaluation was enclosed
      models/fold_0.safetensors ...   one state dict per member
      models/reference.safetensors    how the training cohort looks to each member

A bundle that looks at regions has models/REGION_fold_0.safetensors ... for each of them, and no
inference.json: MONAI does not know its networks.

The one deviation from the MONAI specification is wanted: no models/model.pt, since unpickling runs
code from the file. Nothing here runs code from a bundle.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.torch import load as load_tensors
from torch import Tensor

from listener.segmentation import REGIONS
from worker.crops import CropRecipe
from worker.occlusion import OcclusionSpec
from worker.preprocess import Recipe
from worker.radiomics.vector import Provenance
from worker.seal import METADATA, BadBundle, read_metadata, sha256, verify
from worker.signature import TrustedKey

REFERENCE: Final = "models/reference.safetensors"
README: Final = "docs/README.md"
EVALUATION: Final = "docs/evaluation.html"
PARTS: Final = 10
"""Of what a bundle says of its cohort: of probabilities, and of how inputs look."""

EXPORT_AGAIN: Final = "export it again from its run: python -m trainer export"

SUGGESTED: Final = "suggested"
NOT_SUGGESTED: Final = "not suggested"


@dataclass(frozen=True)
class Network:
    """Which network the members are: a name known to nets and its arguments."""

    name: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Member:
    """The weights of one fold: path within the bundle, sha256 of the file."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Validation:
    """How often which probability was right, of patients that the judging member had not seen.

    Attributes:
        patients: with a probability in each tenth of 0..1; 1 belongs to the last.
        positives: of these.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    patients: tuple[int, ...]
    positives: tuple[int, ...]


@dataclass(frozen=True)
class Spread:
    """How values of a cohort are spread.

    Attributes:
        edges: between the parts, ascending; a value that equals an edge belongs above it.
        share: of the cohort in each part, one more than edges.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    edges: tuple[float, ...]
    share: tuple[float, ...]


@dataclass(frozen=True)
class Description:
    """What configs/metadata.json says under "monro" of any bundle; all of it is needed.

    Attributes:
        analysis: such as "fistula".
        name: of the bundle, such as "fistula-demo".
        network: of every member.
        threshold_low: probability below which the finding is not suggested.
        threshold_high: probability from which on it is suggested; at least threshold_low.
        ood_limit: percentile of the reference cohort beyond which a study is undetermined.
        conformal: per label, the largest nonconformity (1 - probability of the label) with which
            the label still belongs to the set.
        statement: what every report made with the bundle must say.
        intended_input: in words.
        validation: None where it was not recorded.
        inputs: how the cohort is spread in each number that appearance.py tells of an input; empty
            where that was not recorded.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    analysis: str
    name: str
    network: Network
    threshold_low: float
    threshold_high: float
    ood_limit: float
    conformal: dict[str, float]
    statement: str
    intended_input: str
    validation: Validation | None = field(default=None, kw_only=True)
    inputs: dict[str, Spread] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class VolumeDescription(Description):
    """Of a bundle that looks at the whole volume.

    Attributes:
        recipe: how volumes are prepared.
        occlusion: how the map is made.
        members: paths of the folds' weights.
        temperatures: one per member, above 0: divides its log odds.
    """

    recipe: Recipe
    occlusion: OcclusionSpec
    members: tuple[str, ...]
    temperatures: tuple[float, ...]


@dataclass(frozen=True)
class Selected:
    """The handcrafted features that one member weighs, in its order, and their scale in training.

    Attributes:
        names: of the features; as many as the member's network takes at most.
        mean: of each.
        deviation: of each, above 0.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True)
class MeasuredWith:
    """What the features that members weigh were measured with in training.

    Attributes:
        library: the package's name.
        version: of the package, and of the package that filters.
        config_hash: of the recipe's `Radiomics`.
        specimen: value of each feature that a member weighs on the voxels of
            worker/radiomics/specimen.py.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    library: str
    version: str
    config_hash: str
    specimen: dict[str, float]

    @property
    def provenance(self) -> Provenance:
        """The same without values."""
        return Provenance(self.library, self.version, self.config_hash)


@dataclass(frozen=True)
class RegionDescription:
    """The members that look at one region.

    Attributes:
        members: paths of the folds' weights.
        temperatures: one per member, above 0: divides the mean log odds of a patient's crops.
        features: one per member; empty where the network takes none.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    members: tuple[str, ...]
    temperatures: tuple[float, ...]
    features: tuple[Selected, ...] = ()


@dataclass(frozen=True)
class RegionsDescription(Description):
    """Of a bundle that looks at regions of the volume, each with members of its own.

    Attributes:
        recipe: how regions are looked at.
        regions: by name; all of them are reported.
        decisive: the region whose probability is that of the finding; thresholds, conformal and
            out-of-distribution limits are about it.
        measured_with: None where no member weighs a feature.
    """

    recipe: CropRecipe
    regions: dict[str, RegionDescription]
    decisive: str
    measured_with: MeasuredWith | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle of any kind; see `Description` for the fields they share.

    Attributes:
        folder: where it lies.
        version: semantic version from the metadata.
        weights_sha256: one digest over the weights of all members.
        signed_by: fingerprint of the trusted key that signed it; None where none was asked for.
    """

    folder: Path
    analysis: str
    name: str
    version: str
    weights_sha256: str
    network: Network
    threshold_low: float
    threshold_high: float
    ood_limit: float
    conformal: Mapping[str, float]
    statement: str
    intended_input: str
    validation: Validation | None = field(default=None, kw_only=True)
    inputs: Mapping[str, Spread] = field(default_factory=dict, kw_only=True)
    signed_by: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class VolumeBundle(Bundle):
    """A bundle that looks at the whole volume; see `VolumeDescription`.

    Attributes:
        members: the folds' weights, in the order of the description.
    """

    recipe: Recipe
    occlusion: OcclusionSpec
    members: tuple[Member, ...]
    temperatures: tuple[float, ...]


@dataclass(frozen=True)
class RegionModels:
    """The members that look at one region; see `RegionDescription`."""

    members: tuple[Member, ...]
    temperatures: tuple[float, ...]
    features: tuple[Selected, ...]


@dataclass(frozen=True)
class RegionBundle(Bundle):
    """A bundle that looks at regions of the volume; see `RegionsDescription`."""

    recipe: CropRecipe
    regions: Mapping[str, RegionModels]
    decisive: str
    measured_with: MeasuredWith | None = field(default=None, kw_only=True)

    @property
    def features(self) -> dict[str, int]:
        """How many handcrafted features any member of each region weighs."""
        return {
            name: len({feature for each in models.features for feature in each.names})
            for name, models in self.regions.items()
        }


DESCRIPTIONS: Final[Mapping[str, type[VolumeDescription] | type[RegionsDescription]]] = {
    "fistula": VolumeDescription,
    "infection": RegionsDescription,
}


@dataclass(frozen=True, eq=False)
class Reference:
    """How the training cohort looks to one member, in the features its last layer weighs.

    Attributes:
        mean: (F,) of the cases the member was trained on.
        precision: (F, F) inverse of their shrunk covariance.
        distances: (N,) ascending Mahalanobis distances of the cases it was not trained on.
    """

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    distances: NDArray[np.float64]


def load_bundle(folder: Path, trusted: Sequence[TrustedKey] = ()) -> VolumeBundle | RegionBundle:
    """Verify every file of a bundle against its manifest and read its description.

    Args:
        folder: of the bundle.
        trusted: one of these must have signed the manifest; with none, nobody needs to.

    Raises:
        BadBundle: it is not signed as it must be; a file is missing, altered, unlisted or of a kind
            that can carry code; or the description is incomplete or contradicts itself.
    """
    seal = verify(folder, trusted)
    metadata = read_metadata(folder)
    description = _describe(folder, metadata)

    def found(files: Sequence[str]) -> tuple[Member, ...]:
        members = tuple(Member(file, seal.hashes.get(file, "")) for file in files)
        for member in members:
            if not member.sha256:
                raise BadBundle(folder, f"no {member.file}", "the weights of every member")
        return members

    shared = {
        "folder": folder,
        "version": str(metadata.get("version", "")),
        "signed_by": seal.signed_by,
        **{each.name: getattr(description, each.name) for each in fields(Description)},
    }
    match description:
        case VolumeDescription():
            members = found(description.members)
            return VolumeBundle(
                **shared,
                weights_sha256=weights_digest(members),
                recipe=description.recipe,
                occlusion=description.occlusion,
                members=members,
                temperatures=description.temperatures,
            )
        case RegionsDescription():
            regions = {
                name: RegionModels(found(each.members), each.temperatures, each.features)
                for name, each in description.regions.items()
            }
            everyone = tuple(member for each in regions.values() for member in each.members)
            return RegionBundle(
                **shared,
                weights_sha256=weights_digest(everyone),
                recipe=description.recipe,
                regions=regions,
                decisive=description.decisive,
                measured_with=description.measured_with,
            )


def load_volume_bundle(folder: Path, trusted: Sequence[TrustedKey] = ()) -> VolumeBundle:
    """A bundle that looks at the whole volume.

    Raises:
        BadBundle: as `load_bundle`, or it looks at regions.
    """
    bundle = load_bundle(folder, trusted)
    if not isinstance(bundle, VolumeBundle):
        raise BadBundle(folder, f"a bundle of {bundle.analysis}", "one that looks at volumes")
    return bundle


def member_weights(folder: Path, members: Sequence[Member]) -> tuple[dict[str, Tensor], ...]:
    """The state dict of each member, verified once more as it is read.

    Raises:
        BadBundle: a file changed since the bundle was loaded.
    """
    return tuple(_weights(folder, member) for member in members)


def load_reference(folder: Path, members: Sequence[str]) -> tuple[Reference, ...]:
    """How the training cohort looks to each member.

    Args:
        folder: of the bundle.
        members: what the arrays of each begin with: `reference_keys`.

    Raises:
        BadBundle: the reference is missing or lacks a member.
    """
    try:
        arrays = load_arrays((folder / REFERENCE).read_bytes())
        return tuple(
            Reference(
                mean=arrays[f"{member}.mean"].astype(np.float64),
                precision=arrays[f"{member}.precision"].astype(np.float64),
                distances=arrays[f"{member}.distances"].astype(np.float64),
            )
            for member in members
        )
    except (OSError, KeyError, SafetensorError) as error:
        raise BadBundle(
            folder, f"{REFERENCE}: {error}", "mean, precision and distances of each member"
        ) from error


def reference_keys(members: int, region: str = "") -> tuple[str, ...]:
    """How the arrays of the members' reference are called, up to a dot.

    >>> reference_keys(2), reference_keys(2, "ventricles")
    (('0', '1'), ('ventricles.0', 'ventricles.1'))
    """
    begin = f"{region}." if region else ""
    return tuple(f"{begin}{number}" for number in range(members))


def weights_digest(members: tuple[Member, ...]) -> str:
    """One sha256 over the members' own, in order."""
    return sha256("\n".join(member.sha256 for member in members).encode())


def _describe(folder: Path, metadata: dict[str, Any]) -> VolumeDescription | RegionsDescription:
    told = metadata.get("monro")
    analysis = told.get("analysis") if isinstance(told, dict) else None
    if not isinstance(analysis, str) or analysis not in DESCRIPTIONS:
        raise BadBundle(
            folder, f"{METADATA} monro.analysis: {analysis!r}", f"one of {sorted(DESCRIPTIONS)}"
        )
    try:
        found = TypeAdapter(DESCRIPTIONS[analysis]).validate_python(told)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadBundle(folder, f"{METADATA} monro.{where}: {first['msg']}", "a value") from error
    if not 0 <= found.threshold_low <= found.threshold_high <= 1:
        raise BadBundle(
            folder,
            f"thresholds {found.threshold_low} and {found.threshold_high}",
            "0 <= low <= high <= 1",
        )
    if found.conformal.keys() != {SUGGESTED, NOT_SUGGESTED}:
        raise BadBundle(
            folder,
            f"conformal thresholds for {sorted(found.conformal)}",
            f"thresholds for {[NOT_SUGGESTED, SUGGESTED]}",
        )
    _require_cohort(folder, found)
    match found:
        case VolumeDescription():
            _require_temperatures(folder, found.temperatures, found.members)
        case RegionsDescription():
            _require_regions(folder, found)
    return found


def _require_cohort(folder: Path, found: Description) -> None:
    """What is said of the cohort can be counted with."""
    told = found.validation
    if told is not None and not (
        len(told.patients) == len(told.positives) == PARTS
        and all(0 <= some <= all_ for some, all_ in zip(told.positives, told.patients, strict=True))
    ):
        wanted = f"{PARTS} counts, and no more positives than patients"
        raise BadBundle(folder, f"{METADATA} monro.validation: {told}", wanted)
    for name, spread in found.inputs.items():
        ascending = sorted(set(spread.edges)) == list(spread.edges)
        if not (ascending and len(spread.share) == len(spread.edges) + 1):
            wanted = "ascending edges, and a share for each part between them"
            raise BadBundle(folder, f"{METADATA} monro.inputs.{name}: {spread}", wanted)


def _require_temperatures(
    folder: Path, temperatures: tuple[float, ...], members: tuple[str, ...]
) -> None:
    if not members:
        raise BadBundle(folder, "no members", "the weights of one member at least")
    if len(temperatures) != len(members):
        raise BadBundle(
            folder,
            f"{len(temperatures)} temperatures of {len(members)} members",
            "one temperature per member",
        )
    if not all(0 < temperature < math.inf for temperature in temperatures):
        raise BadBundle(folder, f"temperatures {temperatures}", "temperatures above 0")


def _require_regions(folder: Path, found: RegionsDescription) -> None:
    """Every region of the analysis has its members, and every member what it needs."""
    wanted = sorted(each.name for each in REGIONS[found.analysis])
    if sorted(found.regions) != wanted:
        raise BadBundle(folder, f"members for the regions {sorted(found.regions)}", str(wanted))
    if found.decisive not in found.regions:
        raise BadBundle(
            folder, f"decisive region {found.decisive!r}", f"one of {sorted(found.regions)}"
        )
    for name, region in found.regions.items():
        _require_temperatures(folder, region.temperatures, region.members)
        if len(region.features) not in (0, len(region.members)):
            raise BadBundle(
                folder,
                f"features of {len(region.features)} members for {name}",
                f"those of {len(region.members)}, or none",
            )
        for each in region.features:
            unknown = sorted(set(each.names) - set(found.recipe.radiomics.names))
            if unknown:
                raise BadBundle(folder, f"feature {unknown[0]}", "features of its own recipe")
            if not len(each.names) == len(each.mean) == len(each.deviation):
                raise BadBundle(
                    folder, f"{len(each.names)} features for {name}", "a mean and a deviation each"
                )
            if not all(0 < deviation < math.inf for deviation in each.deviation):
                raise BadBundle(folder, f"deviations {each.deviation}", "deviations above 0")
            if not all(map(math.isfinite, each.mean)):
                raise BadBundle(folder, f"means {each.mean}", "finite means")
    _require_specimen(folder, found)


def _require_specimen(folder: Path, found: RegionsDescription) -> None:
    """Every feature that a member weighs can be compared with what it was in training."""
    weighed = {
        name for region in found.regions.values() for each in region.features for name in each.names
    }
    told = found.measured_with.specimen if found.measured_with is not None else {}
    if untold := sorted(weighed - told.keys()):
        raise BadBundle(
            folder,
            f"no value of {untold[0]} under monro.measured_with.specimen",
            "what the features that members weigh were measured with in training",
            EXPORT_AGAIN,
        )


def _weights(folder: Path, member: Member) -> dict[str, Tensor]:
    try:
        content = (folder / member.file).read_bytes()
        if (found := sha256(content)) != member.sha256:
            raise BadBundle(folder, f"sha256 {found} of {member.file}", member.sha256)
        return load_tensors(content)
    except (OSError, SafetensorError) as error:
        raise BadBundle(folder, f"{member.file}: {error}", "weights as safetensors") from error
