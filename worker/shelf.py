"""The bundles a worker holds: found in folders, verified, opened, and looked for while it works.

What is put into a folder becomes known without a restart, and what is promoted can be run. A bundle
that is not what its manifest says, or that calls itself by the version of another one, is refused.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from listener.entries import BundleRow, Edition
from listener.errors import VersionTaken, where
from listener.ledger import Ledger
from worker.analyses.interface import Analysis
from worker.bundle import Bundle, RegionBundle, VolumeBundle, load_bundle
from worker.card import card_of, evaluation_of
from worker.seal import MANIFEST, BadBundle, sha256
from worker.signature import TrustedKey

log = logging.getLogger(__name__)

Open = Callable[[VolumeBundle | RegionBundle], Analysis]
Stamp = tuple[Path, int]
"""A bundle's folder, and when its manifest was written, in nanoseconds."""


@dataclass(frozen=True)
class Place:
    """What was found at a stamp: an edition, or why there is none."""

    edition: Edition | None
    trouble: BadBundle | VersionTaken | None = None


class Shelf:
    """Holds every bundle of its folders that the ledger has as active or shadow.

    Args:
        folders: each a bundle, or a folder of bundles.
        trusted: keys, one of which must have signed; with none, nobody needs to.
        ledger: that knows which bundles are wanted.
        open_bundle: warms a verified bundle.
        seconds: between two looks into the folders.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        trusted: Sequence[TrustedKey],
        ledger: Ledger,
        open_bundle: Open,
        seconds: float,
    ) -> None:
        self._folders, self._trusted, self._ledger = folders, trusted, ledger
        self._open, self._seconds = open_bundle, seconds
        self._places: dict[Stamp, Place] = {}
        self._held: Mapping[Edition, Analysis] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="shelf", daemon=True)

    @property
    def held(self) -> Mapping[Edition, Analysis]:
        """What can be run now, by edition."""
        return self._held

    def troubles(self) -> tuple[str, ...]:
        """What is wrong with the folders now, for people."""
        return tuple(str(each.trouble) for each in self._places.values() if each.trouble)

    def fill(self) -> None:
        """Take the first look.

        Raises:
            BadBundle: a folder holds no bundle, or is one that must not be used.
            VersionTaken: a folder is a bundle that calls itself by the version of another one.
        """
        self.look()
        for folder in self._folders:
            _require_bundles(folder)
        for (folder, _), place in self._places.items():
            if place.trouble and folder in self._folders:
                raise place.trouble

    def start(self) -> None:
        """Go on looking, beside the work."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def look(self) -> None:
        """Look into the folders once, and hold of what is there what is wanted."""
        found = [stamp for folder in self._folders for stamp in _bundles_in(folder)]
        places = {stamp: self._places.get(stamp) or self._meet(stamp[0]) for stamp in found}
        wanted = self._ledger.wanted_editions()
        held = {edition: each for edition, each in self._held.items() if edition in wanted}
        for stamp, place in places.items():
            if place.edition in wanted - held.keys():
                places[stamp] = self._take(stamp[0], place, held)
        self._places, self._held = places, held

    def _meet(self, folder: Path) -> Place:
        """Make a bundle that was not here known to the ledger."""
        try:
            bundle = load_bundle(folder, self._trusted)
            role = self._ledger.register_bundle(_row(bundle))
        except (BadBundle, VersionTaken) as error:
            log.error("%s", error)
            return Place(None, error)
        signed = (
            "signatures are not looked at (MONRO_WORKER_TRUSTED_KEYS is empty)"
            if bundle.signed_by is None
            else f"signed by key {bundle.signed_by}"
        )
        log.info(
            "bundle %s %s: %s, weights %s, %s",
            bundle.name,
            bundle.version,
            role,
            bundle.weights_sha256,
            signed,
        )
        return Place((bundle.weights_sha256, bundle.version))

    def _take(self, folder: Path, place: Place, held: dict[Edition, Analysis]) -> Place:
        """Open a bundle, verified once more; what cannot be opened now is tried again."""
        assert place.edition is not None
        try:
            bundle = load_bundle(folder, self._trusted)
            if (bundle.weights_sha256, bundle.version) != place.edition:
                raise BadBundle(folder, "other weights than a moment ago", place.edition[0])
            held[place.edition] = self._open(bundle)
        except BadBundle as error:
            return self._refused(place, error)
        except RuntimeError as error:  # of torch, where the device has no room
            remedy = "make room there, or retire a shadow"
            found = f"{where(error)} on opening it"
            return self._refused(place, BadBundle(folder, found, "room on the device", remedy))
        return replace(place, trouble=None)

    def _refused(self, place: Place, trouble: BadBundle) -> Place:
        if str(trouble) != str(place.trouble):
            log.error("%s", trouble)
        return replace(place, trouble=trouble)

    def _watch(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the next look may find disk and ledger again
                log.error("bundles were not looked for: %s", where(error))


def verified(folders: Sequence[Path], trusted: Sequence[TrustedKey]) -> Iterator[Bundle]:
    """Every bundle of some folders, checked and not opened.

    Raises:
        BadBundle: a folder holds no bundle, or one of them must not be used.
    """
    for folder in folders:
        for place, _ in _require_bundles(folder):
            yield load_bundle(place, trusted)


def _require_bundles(folder: Path) -> list[Stamp]:
    found = _bundles_in(folder)
    if not found:
        raise BadBundle(folder, f"no {MANIFEST}", "a bundle, or a folder of bundles")
    return found


def _bundles_in(folder: Path) -> list[Stamp]:
    """The bundle that a folder is, or those in it; hidden folders hold what still comes."""
    manifests = [folder / MANIFEST, *sorted(folder.glob(f"[!.]*/{MANIFEST}"))]
    found = [(path.parent, path.stat().st_mtime_ns) for path in manifests if path.is_file()]
    return found[:1] if found and found[0][0] == folder else found


def _row(bundle: Bundle) -> BundleRow:
    return BundleRow(
        bundle.analysis,
        bundle.name,
        bundle.version,
        bundle.weights_sha256,
        card_of(bundle),
        evaluation_of(bundle),
        sha256((bundle.folder / MANIFEST).read_bytes()),
    )
