"""What every object of one result carries, whatever its kind: patient, study, series, origin.

Nothing here asks the clock: all dates and times are those of the outcome, so that the same outcome
always gives the same bytes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from importlib.metadata import version
from typing import Final

from highdicom import ContributingEquipment
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DT

from worker.results import terms
from worker.results.header import PATIENT_AND_STUDY, SCANNER, copied, repair
from worker.results.outcome import Outcome, Seen
from worker.results.terms import KINDS, Kind

IMPLEMENTATION_UID: Final = "2.25.245047160045221658170968117864360456559"


@dataclass(frozen=True, eq=False)
class Letterhead:
    """The common part of the objects of one outcome.

    Attributes:
        header: of the first source, repaired.
        moment: when the objects were created, in the time zone of the source where it names one.
        algorithm: the model as contributing equipment; None where no model took part.
    """

    outcome: Outcome
    header: Dataset
    moment: datetime
    algorithm: Dataset | None

    def instance(self, kind: Kind, index: int = 0) -> Dataset:
        """Begin an object: all modules that do not depend on its content."""
        instance = copied(self.header, PATIENT_AND_STUDY)
        instance.StudyInstanceUID = self.outcome.lineage.study_uid
        self._put_common(instance, kind, index)
        self._put_series(instance, kind)
        self._put_equipment(instance)
        instance.file_meta = _file_meta(instance)
        return instance

    def another(self, instance: Dataset, kind: Kind, index: int) -> Dataset:
        """An object like one begun before; they share all elements but their own."""
        other = Dataset({element.tag: element for element in instance})
        other["SOPInstanceUID"] = DataElement(
            "SOPInstanceUID", "UI", self.outcome.lineage.uid(kind, index)
        )
        other["InstanceNumber"] = DataElement("InstanceNumber", "IS", index + 1)
        other.file_meta = _file_meta(other)
        return other

    def _put_common(self, instance: Dataset, kind: Kind, index: int) -> None:
        """SOP Common module (PS3.3 C.12.1)."""
        instance.SOPClassUID = KINDS[kind].sop_class
        instance.SOPInstanceUID = self.outcome.lineage.uid(kind, index)
        instance.InstanceCreationDate, instance.InstanceCreationTime = self.date, self.time
        instance.InstanceNumber = index + 1
        instance.ContentDate, instance.ContentTime = self.date, self.time
        instance.ContentQualification = "RESEARCH"
        instance.CodingSchemeIdentificationSequence = [_coding_scheme()]

    def _put_series(self, instance: Dataset, kind: Kind) -> None:
        """General Series module (PS3.3 C.7.3.1); SR Document Series asks for no more."""
        instance.SeriesInstanceUID = self.outcome.lineage.series_uid(kind)
        instance.SeriesNumber = self.outcome.series_number(kind)
        instance.SeriesDescription = self.outcome.terms.descriptions[kind]
        instance.SeriesDate, instance.SeriesTime = self.date, self.time

    def _put_equipment(self, instance: Dataset) -> None:
        """Enhanced General Equipment module (PS3.3 C.7.5.2) and who else contributed."""
        instance.Manufacturer = terms.MANUFACTURER
        instance.ManufacturerModelName = terms.PRODUCT
        instance.DeviceSerialNumber = self.outcome.lineage.site
        instance.SoftwareVersions = software_version()
        contributors = (_scanner(self.header), self.algorithm)
        instance.ContributingEquipmentSequence = [item for item in contributors if item is not None]

    @property
    def date(self) -> str:
        """When the objects were created, as DA."""
        return f"{self.moment:%Y%m%d}"

    @property
    def time(self) -> str:
        """When the objects were created, as TM."""
        return f"{self.moment:%H%M%S.%f}"

    @property
    def datetime(self) -> DT:
        """When the objects were created, as DT with the offset from UTC."""
        return DT(f"{self.moment:%Y%m%d%H%M%S.%f%z}")


def letterhead(outcome: Outcome) -> Letterhead:
    """Read the source once for all objects of an outcome."""
    header = repair(outcome.sources[0])
    return Letterhead(
        outcome=outcome,
        header=header,
        moment=_moment(outcome.created, header.get("TimezoneOffsetFromUTC", "")),
        algorithm=_algorithm(outcome) if isinstance(outcome, Seen) else None,
    )


@cache
def software_version() -> str:
    """Of monro; a release that changes what results say raises RESULT_SPECIFICATION too."""
    return version("monro")


def library(letterhead: Letterhead) -> Dataset:
    """The library that builds objects, as contributing equipment: it asks to be named."""
    item = ContributingEquipment.for_highdicom()
    item.ContributionDateTime = letterhead.datetime
    return item


def coded(code: Code) -> Dataset:
    """A code as an item of a sequence (PS3.3 8.8); long values need an attribute of their own."""
    item = Dataset()
    if len(code.value) > 16:
        item.LongCodeValue = code.value
    else:
        item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def _moment(created: datetime, offset: str) -> datetime:
    """All times of an object are in one zone (PS3.3 C.12.1.1.8): the one that the source names."""
    if not offset:
        return created
    sign = -1 if offset[0] == "-" else 1
    ahead = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5]))
    return created.astimezone(timezone(sign * ahead))


def _coding_scheme() -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator = terms.SCHEME
    item.CodingSchemeUID = terms.SCHEME_UID
    item.CodingSchemeName = terms.SCHEME_NAME
    item.CodingSchemeVersion = "1"
    item.CodingSchemeResponsibleOrganization = terms.MANUFACTURER
    return item


def _scanner(header: Dataset) -> Dataset | None:
    if "Manufacturer" not in header:
        return None  # an item has to name one
    item = copied(header, SCANNER)
    item.pop("SpecificCharacterSet", None)
    item.ContributionDescription = "Acquisition equipment of the source images"
    item.PurposeOfReferenceCodeSequence = [coded(codes.DCM.AcquisitionEquipment)]
    return item


def _algorithm(outcome: Seen) -> Dataset:
    """The model as IHE AIR 6.5.3.1 wants it described."""
    item = Dataset()
    item.Manufacturer = terms.MANUFACTURER
    item.ManufacturerModelName = outcome.bundle.name
    item.SoftwareVersions = outcome.bundle.version
    item.DeviceUID = outcome.lineage.model_uid
    item.ContributionDescription = (
        f"AI model that produced this result. Weights sha256 {outcome.lineage.weights_sha256}. "
        f"{outcome.bundle.statement}".rstrip()
    )
    item.PurposeOfReferenceCodeSequence = [coded(outcome.options.algorithm_purpose)]
    return item


def _file_meta(instance: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = instance.SOPClassUID
    meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = f"MONRO {software_version()}"[:16]
    return meta
