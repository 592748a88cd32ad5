"""The features of one region, and what they were computed with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class MixedVectors(ValueError):
    """Feature vectors that were not measured in the same way."""

    def __init__(self, position: int, found: str, expected: str) -> None:
        super().__init__(position, found, expected)
        self.position, self.found, self.expected = position, found, expected

    def __str__(self) -> str:
        return (
            f"feature vector {self.position}: found {self.found}, expected {self.expected} like "
            "the first vector; extract all of them anew with one installation and one configuration"
        )


@dataclass(frozen=True)
class Provenance:
    """What features were computed with.

    Attributes:
        library: the package's name.
        version: of the package, and of the package that filters.
        config_hash: of the `Radiomics` asked for.
    """

    library: str
    version: str
    config_hash: str

    def __str__(self) -> str:
        return f"{self.library} {self.version}, configuration {self.config_hash}"


@dataclass(frozen=True, eq=False)
class Vector:
    """Features of one region, and what they were computed with.

    Attributes:
        names: image_family_feature, as in PyRadiomics; the order is the configuration's.
        values: (features,) finite.
        library: the package's name.
        version: of the package, and of the package that filters.
        config_hash: of the `Radiomics` asked for.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    library: str
    version: str
    config_hash: str

    @property
    def provenance(self) -> Provenance:
        """What it was computed with."""
        return Provenance(self.library, self.version, self.config_hash)


def require_same(vectors: Sequence[Vector]) -> None:
    """Let only vectors pass that were computed in the same way: others must never be mixed.

    Raises:
        MixedVectors: one is of another library, version or configuration than the first.
    """
    for position, vector in enumerate(vectors):
        for what in ("library", "version", "config_hash"):
            found, expected = getattr(vector, what), getattr(vectors[0], what)
            if found != expected:
                raise MixedVectors(position + 1, f"{what} {found}", expected)
