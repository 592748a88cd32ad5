"""The overlay of a job, slice by slice: pictures that the worker kept beside its results.

The console serves bytes and looks at none of them: which slice is marked most, and how large a
pixel is, stands in the guide that the worker kept as well (worker/results/overlay.py).
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import select

from listener.errors import MonroError
from listener.ledger import Ledger
from listener.spool import Spool
from listener.tables import jobs, results

Layer = Literal["anatomy", "heat"]
LAYERS: Final[tuple[Layer, ...]] = ("anatomy", "heat")

OVERLAY: Final = "overlay"
GUIDE: Final = "layers.json"
LARGEST_GUIDE_BYTES: Final = 1 << 20
LARGEST_PICTURE_BYTES: Final = 32 << 20
IHDR_END: Final = 24
"""Of a PNG file: signature, length and name of the first chunk, width, height."""


class NoPicture(MonroError):
    """There is no such picture, or it is not where it should be."""

    def __init__(self, job_id: str, what: str) -> None:
        super().__init__(job_id, what)
        self.job_id, self.what = job_id, what

    def __str__(self) -> str:
        return f"job {self.job_id} has no {self.what}; its results may have been purged"


@dataclass(frozen=True)
class Slices:
    """What there is to look at.

    Attributes:
        count: slices, numbered from 1.
        most_marked: the slice that the map marks most.
        marked: how much of each slice is marked, 0 to 1; empty where the worker did not tell.
        width: of a slice in mm, or in pixels where the worker did not tell how large they are.
        height: likewise.
        largest: effect at the ends of the colour bar, in log odds; None where nobody told.
        two_sided: whether cool colours mark what spoke against the finding.
        caption: what else is to be said of the pictures.
    """

    job_id: str
    analysis: str
    count: int
    most_marked: int
    marked: tuple[float, ...]
    width: float
    height: float
    largest: float | None
    two_sided: bool
    caption: str


def read_slices(ledger: Ledger, spool: Spool, study_uid: str, job_id: str) -> Slices | None:
    """What there is to look at of a job; None where it made no overlay.

    Raises:
        NoPicture: it did, and it is not where it should be.
    """
    with ledger.reading() as connection:
        found = connection.execute(
            select(results.c.number, results.c.path, jobs.c.analysis)
            .join(jobs, jobs.c.job_id == results.c.job_id)
            .where(
                jobs.c.study_uid == study_uid,
                results.c.job_id == job_id,
                results.c.kind == OVERLAY,
            )
            .order_by(results.c.number)
        ).all()
    if not found:
        return None
    first = Path(found[0].path)
    guide = _guide(spool, study_uid, job_id, first)
    columns, rows = _pixels(spool, study_uid, job_id, first)
    marked = tuple(float(each) for each in guide.get("marked", ()))[: len(found)]
    most = max(range(len(marked)), key=marked.__getitem__) if marked else len(found) // 2
    height, width = guide.get("pixel_mm", (1.0, 1.0))
    return Slices(
        job_id=job_id,
        analysis=found[0].analysis,
        count=len(found),
        most_marked=most + 1,
        marked=marked,
        width=round(columns * float(width), 2),
        height=round(rows * float(height), 2),
        largest=guide.get("largest"),
        two_sided=bool(guide.get("two_sided", True)),
        caption=str(guide.get("caption", "")),
    )


def read_layer(
    ledger: Ledger, spool: Spool, study_uid: str, job_id: str, number: int, layer: Layer
) -> bytes:
    """One layer of one slice as PNG; `number` begins at 1.

    Raises:
        NoPicture: there is none.
    """
    what = f"{layer} of slice {number}"
    paths = _paths(ledger, study_uid, job_id, number, 1)
    if not paths:
        raise NoPicture(job_id, what)
    return _read_picture(spool, study_uid, job_id, paths[0], layer, what)


def read_pack(
    ledger: Ledger, spool: Spool, study_uid: str, job_id: str, first: int, count: int
) -> bytes:
    """Both layers of some slices in one piece: before each PNG its size, 4 bytes, big-endian.

    Whoever scrolls through 200 slices would send 400 requests otherwise.

    Raises:
        NoPicture: there are none.
    """
    paths = _paths(ledger, study_uid, job_id, first, count)
    if not paths:
        raise NoPicture(job_id, f"slice {first}")
    pack = bytearray()
    for number, path in enumerate(paths, start=first):
        for layer in LAYERS:
            what = f"{layer} of slice {number}"
            picture = _read_picture(spool, study_uid, job_id, path, layer, what)
            pack += struct.pack(">I", len(picture)) + picture
    return bytes(pack)


def _paths(ledger: Ledger, study_uid: str, job_id: str, first: int, count: int) -> list[Path]:
    """Where the overlay images of some slices lie."""
    query = (
        select(results.c.path)
        .join(jobs, jobs.c.job_id == results.c.job_id)
        .where(
            jobs.c.study_uid == study_uid,
            results.c.job_id == job_id,
            results.c.kind == OVERLAY,
            results.c.number.between(first - 1, first + count - 2),
        )
        .order_by(results.c.number)
    )
    with ledger.reading() as connection:
        return [Path(path) for path in connection.scalars(query)]


def _read_picture(
    spool: Spool, study_uid: str, job_id: str, overlay: Path, layer: Layer, what: str
) -> bytes:
    picture = overlay.with_suffix(f".{layer}.png")
    return read_kept(spool, study_uid, job_id, picture, LARGEST_PICTURE_BYTES, what)


def read_kept(
    spool: Spool, study_uid: str, job_id: str, path: Path, most_bytes: int, what: str
) -> bytes:
    """Read a file that a job kept, and nothing that lies anywhere else.

    Raises:
        NoPicture: it is not there, lies elsewhere, or is larger than such files are.
    """
    folder = (spool.root / "results" / study_uid / job_id).resolve()
    real = path.resolve()
    if not real.is_relative_to(folder):
        raise NoPicture(job_id, what)
    try:
        with real.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise NoPicture(job_id, what) from error
    if len(content) > most_bytes:
        raise NoPicture(job_id, what)
    return content


def _pixels(spool: Spool, study_uid: str, job_id: str, beside: Path) -> tuple[int, int]:
    """Columns and rows of the pictures, as the first one says.

    Raises:
        NoPicture: there is none.
    """
    path, what = beside.with_suffix(".anatomy.png"), "picture"
    content = read_kept(spool, study_uid, job_id, path, LARGEST_PICTURE_BYTES, what)
    if len(content) < IHDR_END or content[12:16] != b"IHDR":
        raise NoPicture(job_id, what)
    columns, rows = struct.unpack(">II", content[16:IHDR_END])
    return columns, rows


def _guide(spool: Spool, study_uid: str, job_id: str, beside: Path) -> dict[str, Any]:
    """What the worker says of the pictures; nothing where it did not."""
    path = beside.with_name(GUIDE)
    try:
        content = read_kept(spool, study_uid, job_id, path, LARGEST_GUIDE_BYTES, "guide")
        guide = json.loads(content)
    except (NoPicture, ValueError):
        return {}
    return guide if isinstance(guide, dict) else {}


def around(count: int, number: int, reach: int) -> Sequence[int]:
    """Slices on either side of one, for people whose browser runs no script."""
    return range(max(1, number - reach), min(count, number + reach) + 1)
