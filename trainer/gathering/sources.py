"""Where the studies of a cohort lie: in a folder here, or behind a server (dicomweb.py).

A source finds the studies that a row of the label table is about, says which series they have, and
hands out the files of one series on local disk. Finding happens in one process; a `Delivery` is
small and pickles, so that others can take the files in.

Messages name neither patients nor studies, and no path below a folder either: people name folders
after patients.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final, Protocol

import pydicom

from listener.errors import BadAttribute, MonroError
from listener.series import BROKEN, Header, InstanceKey, SeriesFacts, read_series_facts
from trainer.gathering.table import LabelRow

Progress = Callable[[int, int], None]

# PS3.10 7.1: 128 bytes of preamble, then these. The service reads no file without them either.
PREAMBLE_BYTES: Final = 128
MAGIC: Final = b"DICM"
UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
INDEXED: Final = (
    *UIDS,
    "PatientID",
    "AccessionNumber",
    "StudyDate",
    "Modality",
)


class SourceFailed(MonroError):
    """A source does not give what it has; what is gathered already is kept."""

    def __init__(self, source: str, found: str, needed: str) -> None:
        super().__init__(source, found, needed)
        self.source, self.found, self.needed = source, found, needed

    def __str__(self) -> str:
        return f"{self.source}: {self.found}; {self.needed}"


@dataclass(frozen=True)
class Study:
    """One study as its headers name it: patient data, never to be written down.

    Attributes:
        patient: PatientID, perhaps empty.
        accession: AccessionNumber, perhaps empty.
        day: StudyDate; None where it is absent or no date.
    """

    study_uid: str
    patient: str
    accession: str
    day: date | None


@dataclass(frozen=True)
class Series:
    """One series of a study.

    Attributes:
        sop_uids: of its instances, sorted.
        facts: read from the first instance that can be read, as the listener does.
    """

    sop_uids: tuple[str, ...]
    facts: SeriesFacts


class Delivery(Protocol):
    """The files of one series, to be taken in by any process."""

    def files(self) -> AbstractContextManager[list[Path]]:
        """Local files, one for each instance and in the order of their UIDs.

        They may vanish when the context is left.

        Raises:
            SourceFailed: they cannot be had.
        """


class Source(Protocol):
    """Whatever holds studies."""

    def find(self, row: LabelRow) -> Sequence[Study]:
        """The studies that a row is about, by UID; none where the source has none.

        The study is looked for by its UID, then by its accession number. Where the row names no
        study, all MR studies of the patient are meant.

        Raises:
            SourceFailed: the source cannot be asked.
        """

    def series(self, study: Study) -> Sequence[Series]:
        """The readable series of a study, by UID; some sources tell of MR series only.

        Raises:
            SourceFailed: the source cannot be asked.
        """

    def deliver(self, series: Series) -> Delivery:
        """How to get at the files of a series."""


# --- a folder ---


@dataclass(frozen=True)
class LocalFiles:
    """Files that lie on this machine, and stay there."""

    paths: tuple[Path, ...]

    @contextmanager
    def files(self) -> Iterator[list[Path]]:
        """The files themselves."""
        yield list(self.paths)


@dataclass
class _Shelf:
    """What a folder holds of one study."""

    study: Study
    modalities: set[str] = field(default_factory=set)
    series: dict[str, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))


class FolderSource:
    """DICOM files in any nesting and under any names; whatever else lies there is passed over.

    Headers are read once, in the constructor. Where two files hold the same instance, the one
    whose path comes first is used.

    Args:
        paths: files, DICOM or not.
        on_progress: called with the files looked at and the number of all.

    Attributes:
        passed_over: how many files are no DICOM instances.
    """

    def __init__(self, paths: Iterable[Path], on_progress: Progress = lambda _done, _all: None):
        self.passed_over = 0
        self._shelves: dict[str, _Shelf] = {}
        ordered = sorted(paths)
        for done, path in enumerate(ordered, start=1):
            self._index(path)
            on_progress(done, len(ordered))

    @classmethod
    def under(
        cls, folder: Path, on_progress: Progress = lambda _done, _all: None
    ) -> "FolderSource":
        """All files under a folder.

        Raises:
            SourceFailed: some part of it cannot be read, or it holds no DICOM file.
        """
        source = cls(_files_under(folder), on_progress)
        if not source._shelves:
            found = f"no DICOM instance among {source.passed_over} files"
            raise SourceFailed(str(folder), found, "name the folder that holds the DICOM files")
        return source

    def find(self, row: LabelRow) -> list[Study]:
        """See Source."""
        shelves = self._by_uid(row.study) or [
            shelf
            for shelf in self._shelves.values()
            if (shelf.study.accession == row.study if row.study else _is_mr_of(shelf, row.patient))
        ]
        return sorted((shelf.study for shelf in shelves), key=lambda study: study.study_uid)

    def studies(self) -> list[Study]:
        """All studies, by UID."""
        return [self._shelves[uid].study for uid in sorted(self._shelves)]

    def series(self, study: Study) -> list[Series]:
        """See Source."""
        held = self._shelves[study.study_uid].series
        every = (read_series(held[uid], len(held[uid])) for uid in sorted(held))
        return [series for series in every if series is not None]

    def deliver(self, series: Series) -> LocalFiles:
        """See Source."""
        held = self._shelves[series.facts.study_uid].series[series.facts.series_uid]
        return LocalFiles(tuple(held[uid] for uid in series.sop_uids))

    def _by_uid(self, study: str) -> list[_Shelf]:
        return [self._shelves[study]] if study in self._shelves else []

    def _index(self, path: Path) -> None:
        header = _header_of(path)
        try:
            if header is None:
                raise BadAttribute("no DICOM file")
            key = InstanceKey(*(header.text(keyword) for keyword in UIDS))
        except BadAttribute:
            self.passed_over += 1
            return
        shelf = self._shelves.setdefault(key.study_uid, _Shelf(read_study(header)))
        shelf.modalities.add(header.code("Modality"))
        shelf.series[key.series_uid].setdefault(key.sop_uid, path)


def _is_mr_of(shelf: _Shelf, patient: str) -> bool:
    return shelf.study.patient == patient and "MR" in shelf.modalities


def _files_under(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        found = f"a folder that cannot be read ({type(error).__name__})"
        raise SourceFailed(str(folder), found, "make all of it readable") from None

    walked = os.walk(folder, onerror=fail)
    return [Path(parent) / name for parent, _, names in walked for name in names]


def _header_of(path: Path) -> Header | None:
    """What is indexed of a file; None where it is no DICOM file or cannot be parsed."""
    try:
        with path.open("rb") as file:
            if file.read(PREAMBLE_BYTES + len(MAGIC))[PREAMBLE_BYTES:] != MAGIC:
                return None
            file.seek(0)
            tags: list[Any] = list(INDEXED)
            return Header(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags))
    except BROKEN:
        return None


def read_series(files: Mapping[str, Path], instances: int) -> Series | None:
    """A series by its first readable instance, as the listener reads it; None if there is none.

    Args:
        files: SOP Instance UID to file, of the instances at hand.
        instances: how many the series has.
    """
    for uid in sorted(files):
        try:
            return Series(tuple(sorted(files)), read_series_facts(files[uid], instances))
        except BadAttribute:
            continue
    return None


def read_study(header: Header) -> Study:
    """The study that a header is of."""
    return Study(
        header.text("StudyInstanceUID"),
        header.text("PatientID"),
        header.text("AccessionNumber"),
        read_day(header.text("StudyDate")),
    )


def read_day(text: str) -> date | None:
    """A date as DICOM writes it (PS3.5, VR DA), also in the old way with dots.

    >>> read_day("20260131"), read_day("2026.01.31"), read_day("20260231"), read_day("")
    (datetime.date(2026, 1, 31), datetime.date(2026, 1, 31), None, None)
    """
    digits = text.replace(".", "")
    if not re.fullmatch(r"\d{8}", digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
