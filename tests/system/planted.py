"""Patients whose names cannot be mistaken, and the search for anything that tells them.

What was heard is read as it is and as what it may wrap: escapes of Redis, JSON and URLs, base64 (in
which Celery sends its messages) and hexadecimal digits, each within the other.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Final

from pydicom import Dataset

SHORTEST_FORM: Final = 5
"""Bytes: shorter ones turn up by chance, in digests and compressed data."""

ENCODINGS: Final = (
    "utf-8", "utf-16-le", "utf-16-be", "latin-1", "iso8859-5", "iso2022_jp", "euc_kr", "gb18030",
)  # fmt: skip
"""That text is written in, by DICOM (PS3.3 C.12.1.1.2) and by programs."""

WRAPPINGS_DEEP: Final = 2
"""JSON within base64, for one."""

BYTE_ESCAPE: Final = re.compile(rb"(?:\\x|%)([0-9A-Fa-f]{2})")
CHARACTER_ESCAPE: Final = re.compile(rb"\\+u([0-9A-Fa-f]{4})")
BASE64_RUN: Final = re.compile(rb"[A-Za-z0-9+/_-]{12,}")
HEX_RUN: Final = re.compile(rb"(?:[0-9A-Fa-f]{2}){6,}")


@dataclass(frozen=True)
class Planted:
    """What names a patient, as the headers of a study hold it.

    Attributes:
        charset: SpecificCharacterSet, and the Python codec of it.
        birth_date: YYYYMMDD, as `study_date` is.
    """

    charset: tuple[str, str]
    name: str
    patient_id: str
    other_id: str
    birth_date: str
    accession: str
    referring: str
    institution: str
    study_date: str

    def into(self, dataset: Dataset) -> None:
        """Write it into a header; whatever else named somebody there is gone."""
        other = Dataset()
        other.PatientID, other.TypeOfPatientID = self.other_id, "TEXT"
        dataset.SpecificCharacterSet = self.charset[0].split("\\")
        dataset.PatientName = self.name
        dataset.PatientID = self.patient_id
        dataset.OtherPatientIDs = self.other_id
        dataset.OtherPatientIDsSequence = [other]
        dataset.PatientBirthDate = self.birth_date
        dataset.AccessionNumber = self.accession
        dataset.ReferringPhysicianName = self.referring
        dataset.InstitutionName = self.institution
        dataset.StudyDate = dataset.SeriesDate = self.study_date
        dataset.AcquisitionDate = dataset.ContentDate = self.study_date

    def words(self) -> Iterator[str]:
        """Everything that must be told nowhere: names part by part, dates as people write them."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("date"):
                year, month, day = value[:4], value[4:6], value[6:]
                yield from (value, f"{year}-{month}-{day}", f"{day}.{month}.{year}")
                yield from (
                    f"{year}/{month}/{day}",
                    f"{month}/{day}/{year}",
                    f"{day}/{month}/{year}",
                )
            elif field.name != "charset":
                yield from re.split(r"[\^=]", value)


PATIENTS: Final[Mapping[str, Planted]] = {
    "judged": Planted(
        charset=("ISO_IR 192", "utf-8"),
        name="Zqxjudgedson^Vyklatine^Mwiddleby^Qdoctorix^Zjuniorus",
        patient_id="ZQX-4711-JUDGED",
        other_id="ZQX-OTHER-0815",
        birth_date="18790314",
        accession="ZQXACC90210",
        referring="Qvreferrer^Xylophonia",
        institution="Zqxhospital of Nowhere",
        study_date="18870613",
    ),
    "refused": Planted(
        charset=("ISO_IR 100", "latin-1"),
        name="Zqxärmühlenß^Vößgivenå",
        patient_id="ZQX-4712-REFUSED",
        other_id="ZQX-OTHER-0816",
        birth_date="18800229",
        accession="ZQXACC90211",
        referring="Qvüberweiser^Xénophon",
        institution="Zqxkrankenhaus Überall",
        study_date="18880714",
    ),
    "without a series": Planted(
        charset=("\\ISO 2022 IR 87", "iso2022_jp"),
        name="Zqxyamada^Vyktarou=山田橋^太郎丸=やまだばし^たろうまる",
        patient_id="ZQX-4713-NOSERIES",
        other_id="ZQX-OTHER-0817",
        birth_date="18810401",
        accession="ZQXACC90212",
        referring="Qvisha^Xyuki",
        institution="Zqxbyouin Tokyo",
        study_date="18890815",
    ),
    "malformed": Planted(
        charset=("ISO_IR 144", "iso8859-5"),
        name="Жщукович^Эльфридав",
        patient_id="ZQX-4714-MALFORMED",
        other_id="ZQX-OTHER-0818",
        birth_date="18820502",
        accession="ZQXACC90213",
        referring="Ющервин^Ферапонт",
        institution="Больничный городок",
        study_date="18900916",
    ),
}


def forms(patients: Mapping[str, Planted] = PATIENTS) -> dict[bytes, str]:
    """Bytes to look for, lower case as far as they are ASCII, and the word that they are."""
    words = {word for patient in patients.values() for word in patient.words()}
    found = {}
    for word in sorted(words):
        for spelt in (word, word.lower(), word.upper()):
            for encoding in ENCODINGS:
                with suppress(UnicodeEncodeError):
                    form = spelt.encode(encoding).lower()
                    if len(form) >= SHORTEST_FORM:
                        found[form] = word
    return found


def told(heard: bytes, wanted: Mapping[bytes, str]) -> set[str]:
    """Those of the words that something tells, in whatever wrapping.

    Args:
        heard: what was logged, sent or written.
        wanted: that `forms` made.
    """
    found: set[str] = set()
    for reading in _readings(heard, WRAPPINGS_DEEP):
        lower = reading.lower()
        found |= {word for form, word in wanted.items() if form in lower}
    return found


def _readings(content: bytes, deep: int) -> Iterator[bytes]:
    yield content
    if not deep:
        return
    for unwrap in (_without_byte_escapes, _without_character_escapes, _from_base64, _from_hex):
        unwrapped = unwrap(content)
        if unwrapped and unwrapped != content:
            yield from _readings(unwrapped, deep - 1)


def _without_byte_escapes(content: bytes) -> bytes:
    return BYTE_ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), content)


def _without_character_escapes(content: bytes) -> bytes:
    def character(escape: re.Match[bytes]) -> bytes:
        return chr(int(escape[1], 16)).encode("utf-8", "surrogatepass")

    return CHARACTER_ESCAPE.sub(character, content)


def _from_base64(content: bytes) -> bytes:
    """All that may be base64, whatever stands in front of it: from each of four characters on."""

    def decoded(run: bytes, start: int) -> bytes:
        shifted = run[start:].translate(bytes.maketrans(b"-_", b"+/"))
        return base64.b64decode(shifted[: len(shifted) // 4 * 4])

    return _each(BASE64_RUN, content, decoded, starts=4)


def _from_hex(content: bytes) -> bytes:
    return _each(HEX_RUN, content, lambda run, start: binascii.unhexlify(run), starts=1)


def _each(
    pattern: re.Pattern[bytes], content: bytes, decoded: Callable[[bytes, int], bytes], starts: int
) -> bytes:
    runs = set(pattern.findall(content))
    return b"\n".join(decoded(run, start) for run in sorted(runs) for start in range(starts))
