"""Unique identifiers that follow from what a result was made of, so that a second run repeats them.

A UID is a name-based UUID (RFC 9562, version 5) written under 2.25 (PS3.5 B.2). Nothing goes in
but the ingredients listed in `Lineage`: no clock, no randomness, no patient data.
"""

import json
import uuid
from dataclasses import astuple, dataclass
from typing import Final

# Raised whenever the content or the layout of a result changes: an old object then keeps its UID,
# and a study judged again gets new objects that name the old ones as predecessors.
RESULT_SPECIFICATION: Final = 3

MONRO: Final = uuid.UUID("26f0c097-0d1c-4173-81b9-33260f20d5f9")


@dataclass(frozen=True)
class Lineage:
    """Everything that tells one result from another.

    Attributes:
        site: key of the installation, so that two sites that judge the same study do not collide.
        study_uid: StudyInstanceUID of the source.
        analysis: such as "fistula".
        digest: of the selected series: sorted SOP Instance UIDs and content hashes.
        bundle: name and version of the bundle; empty where no bundle took part.
        weights_sha256: of all its members; empty likewise.
        occlusion: mode and parameters of the map, as one canonical string; empty likewise.
        specification: of the results; a predecessor may have been written to an older one.
    """

    site: str
    study_uid: str
    analysis: str
    digest: str
    bundle: str
    weights_sha256: str
    occlusion: str
    specification: int = RESULT_SPECIFICATION

    def uid(self, kind: str, index: int = 0) -> str:
        """UID of one object of this result.

        >>> Lineage("A", "1.2", "fistula", "d", "b 1", "w", "exact").uid("overlay", 3)
        '2.25.19252577376959978557995597897759436929'
        """
        return derive("result", *astuple(self), kind, index)

    def series_uid(self, kind: str) -> str:
        """UID of the series that holds the objects of one kind."""
        return self.uid(f"{kind} series")

    @property
    def tracking_uid(self) -> str:
        """UID of what is tracked: the finding in this study, however often it is judged."""
        return derive("tracking", self.site, self.study_uid, self.analysis)

    @property
    def model_uid(self) -> str:
        """UID of the model as a device; changes whenever it is modified (IHE AIR 6.5.3.1)."""
        return derive("model", self.bundle, self.weights_sha256)

    @property
    def station_uid(self) -> str:
        """UID of this installation as the device that observes."""
        return derive("station", self.site)


def derive(*ingredients: str | int) -> str:
    """A UID under 2.25 that differs whenever an ingredient does.

    >>> derive("a", "bc") == derive("ab", "c")
    False
    """
    # JSON keeps ingredients apart; joined by any character, two lists could read the same.
    name = json.dumps(ingredients, ensure_ascii=True)
    return f"2.25.{uuid.uuid5(MONRO, name).int}"
