"""The result objects of one outcome, in the order of delivery, and their bytes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import (
    correct_ambiguous_vr_element,
    write_data_element,
    write_file_meta_info,
)
from pydicom.valuerep import AMBIGUOUS_VR

from worker.results.document import Evidence, document
from worker.results.header import UTF_8, fits_its_charset
from worker.results.letterhead import Letterhead, letterhead
from worker.results.multiframe import float_map, hot_region
from worker.results.outcome import (
    Estimated,
    Judged,
    NotJudged,
    Options,
    Predecessor,
    Proposed,
    Seen,
)
from worker.results.overlay import Layers, overlay
from worker.results.proposal import note, proposal
from worker.results.refusal import refusal, refusal_summary
from worker.results.report import report
from worker.results.summary import summary
from worker.results.terms import KINDS, Kind, Phase

__all__ = [
    "Encoder",
    "Estimated",
    "Judged",
    "Kind",
    "Layers",
    "NotJudged",
    "Options",
    "Phase",
    "Predecessor",
    "Proposed",
    "ResultObject",
    "objects",
]


PREAMBLE_BYTES: Final = 128
# Too large to be kept, and never shared.
PIXELS: Final = ("PixelData", "FloatPixelData")


@dataclass(frozen=True, eq=False)
class ResultObject:
    """One DICOM instance of a result.

    Attributes:
        kind: what it is.
        index: among the objects of its kind, from 0.
        dataset: with file meta information, to be written by `encode`.
        layers: of an overlay image, for the console; None otherwise.
    """

    kind: Kind
    index: int
    dataset: Dataset
    layers: Layers | None = None

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""
        return str(self.dataset.SeriesInstanceUID)

    @property
    def sop_uid(self) -> str:
        """SOPInstanceUID."""
        return str(self.dataset.SOPInstanceUID)

    @property
    def sop_class_uid(self) -> str:
        """SOPClassUID."""
        return str(self.dataset.SOPClassUID)

    @property
    def phase(self) -> Phase:
        """When it is delivered: after all objects of lower phases are acknowledged."""
        return KINDS[self.kind].phase

    @property
    def alternative_of(self) -> Kind | None:
        """The kind of which it is another encoding: a destination gets the one it accepts."""
        return KINDS[self.kind].alternative_of


def objects(outcome: Estimated | Proposed | NotJudged) -> list[ResultObject]:
    """Write an outcome down, each report in two encodings.

    A judged study: overlay, report and summary, and the regions that were proposed. One whose map
    is still to come: the early report. One whose regions a reader must see first: these and a
    note. One that could not be judged: refusal and its summary. The same outcome always gives the
    same objects, byte for byte.
    """
    match outcome:
        case Judged():
            found = _result(outcome)
        case Estimated():
            found = _early(outcome)
        case Proposed():
            found = _proposal(outcome)
        case NotJudged():
            found = _refusal(outcome)
    # Patient and texts may need different character sets: then all objects get the one that
    # holds everything, since the objects of a study should spell the patient's name alike.
    if not all(fits_its_charset(each.dataset) for each in found if each.layers is None):
        for each in found:
            each.dataset.SpecificCharacterSet = UTF_8
    return found


class Encoder:
    """Writes datasets as DICOM files (PS3.10), Explicit VR Little Endian.

    Elements that datasets share, as the images of an overlay do, are encoded once.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[DataElement, bytes]] = {}

    def encode(self, dataset: Dataset) -> bytes:
        """The bytes that `pydicom.dcmwrite` would write."""
        file = _little_endian()
        file.write(b"\0" * PREAMBLE_BYTES + b"DICM")
        write_file_meta_info(file, dataset.file_meta, enforce_standard=True)
        charset = dataset.get("SpecificCharacterSet", default_encoding)
        for element in dataset:
            if element.keyword in PIXELS or element.VR in AMBIGUOUS_VR:
                definite = correct_ambiguous_vr_element(element, dataset, is_little_endian=True)
                write_data_element(file, definite, charset)
            else:
                file.write(self._encoded(element, charset))
        return file.getvalue()

    def _encoded(self, element: DataElement, charset: str) -> bytes:
        known = self._known.get(id(element))
        if known is None:
            part = _little_endian()
            write_data_element(part, element, charset)
            # The element is kept too, or another one might be given its id.
            known = self._known[id(element)] = element, part.getvalue()
        return known[1]


def _little_endian() -> DicomBytesIO:
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    return file


def _result(judged: Judged) -> list[ResultObject]:
    head = letterhead(judged)
    images = [
        ResultObject(Kind.OVERLAY, index, image, layers)
        for index, (image, layers) in enumerate(overlay(head, judged))
    ]
    evidence = _evidence(head, judged.evidence([each.dataset for each in images]))
    return [
        *images,
        *_documents(head, (Kind.REPORT, Kind.REPORT_ENHANCED), report(judged), evidence),
        *_documents(head, (Kind.SUMMARY,), summary(judged), evidence),
        *_regions(head, judged),
        *_extras(head, judged),
    ]


def _evidence(head: Letterhead, instances: Sequence[Dataset]) -> Evidence:
    return Evidence(instances, head.outcome.lineage.study_uid)


def _documents(
    head: Letterhead, kinds: Iterable[Kind], root: Dataset, evidence: Evidence
) -> Iterator[ResultObject]:
    """The same content as documents of several kinds."""
    for kind in kinds:
        yield ResultObject(kind, 0, document(head, kind, root, evidence))


def _extras(head: Letterhead, judged: Judged) -> Iterator[ResultObject]:
    wanted = judged.options.extras
    if Kind.FLOAT_MAP in wanted:
        yield ResultObject(Kind.FLOAT_MAP, 0, float_map(head, judged))
    if Kind.REGION in wanted and (region := hot_region(head, judged)) is not None:
        yield ResultObject(Kind.REGION, 0, region)


def _regions(head: Letterhead, seen: Seen) -> Iterator[ResultObject]:
    if seen.proposed:
        yield ResultObject(Kind.PROPOSAL, 0, proposal(head, seen))


def _proposal(proposed: Proposed) -> list[ResultObject]:
    head = letterhead(proposed)
    found = list(_regions(head, proposed))
    evidence = _evidence(head, [*proposed.sources, found[0].dataset])
    return [*found, *_documents(head, (Kind.NOTE,), note(proposed), evidence)]


def _early(estimated: Estimated) -> list[ResultObject]:
    head = letterhead(estimated)
    evidence = _evidence(head, estimated.evidence([]))
    kinds = Kind.EARLY, Kind.EARLY_ENHANCED
    return list(_documents(head, kinds, report(estimated), evidence))


def _refusal(refused: NotJudged) -> list[ResultObject]:
    head = letterhead(refused)
    evidence = _evidence(head, refused.sources)
    kinds = Kind.REFUSAL, Kind.REFUSAL_ENHANCED
    return [
        *_documents(head, kinds, refusal(refused), evidence),
        *_documents(head, (Kind.REFUSAL_SUMMARY,), refusal_summary(refused), evidence),
    ]
