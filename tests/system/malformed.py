"""Instances and PDUs that are broken where a patient's name, ID or birth date stands."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

import urllib3
from pydicom import Dataset, config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dsutils import encode, encode_file_meta

from tests.system.planted import Planted

COMMITMENT: Final = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"

# PS3.8 9.3.5 and E.2
LAST_OF_COMMAND, LAST_OF_DATASET = 0x03, 0x02

# PS3.7 E.1: C-STORE, C-FIND, C-MOVE, C-ECHO, N-EVENT-REPORT and N-ACTION requests.
REQUESTS: Final = (0x0001, 0x0020, 0x0021, 0x0030, 0x0100, 0x0130)

SENT_SECONDS: Final = 0.2
"""For what is sent to be dealt with: nobody answers garbage."""

UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

NUMBERS_AND_CODES: Final = {
    "SliceThickness": "DS",
    "InstanceNumber": "IS",
    "ImagePositionPatient": "DS",
    "ContentDate": "DA",
    "ContrastBolusVolume": "DS",
    "SeriesNumber": "IS",
    "EchoTime": "DS",
    "ImageType": "CS",
    "FlipAngle": "DS",
    "Rows": "US",
}
"""Attributes that are read of a series, and what they should hold."""


def identified(patient: Planted, what: str) -> Dataset:
    """A header that is whole, of an instance of its own."""
    dataset = Dataset()
    patient.into(dataset)
    dataset.SOPClassUID = MRImageStorage
    for level in UIDS:
        setattr(dataset, level, generate_uid(entropy_srcs=[level, what]))
    dataset.Modality, dataset.InstanceNumber = "MR", "1"
    return dataset


def post_malformed(port: int, token: str, patient: Planted) -> None:
    """Send all instances of this by STOW-RS, as parts of one request and to a path of their own."""
    parts = [
        b"\0" * 128 + b"DICM" + _file_meta(sop_uid) + dataset
        for dataset, sop_uid in _instances(patient)
    ]
    parts += [patient.name.encode(), b"DICM" + patient.patient_id.encode()]
    body = b"".join(b"--x\r\nContent-Type: application/dicom\r\n\r\n" + p + b"\r\n" for p in parts)
    kind = 'multipart/related; type="application/dicom"; boundary=x'
    for path, shown in (
        ("/studies", token),
        (f"/studies/{patient.patient_id}", token),
        ("/studies", patient.patient_id),
    ):
        headers = {"Content-Type": kind, "Authorization": f"Bearer {shown}"}
        url = f"http://127.0.0.1:{port}{quote(path)}"
        urllib3.request("POST", url, body=body + b"--x--\r\n", headers=headers, retries=False)


def _file_meta(sop_uid: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, sop_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return encode_file_meta(meta)


def send_malformed(port: int, patient: Planted) -> None:
    """Send all of this to a listener, each on an association of its own."""
    for dataset, sop_uid in _instances(patient):
        with _association(port) as association:
            _store(association, 1, str(MRImageStorage), sop_uid, dataset)
    with _association(port) as association:
        _store(association, 5, str(MRImageStorage), patient.patient_id, b"no deflated dataset")
    whole = _bytes(identified(patient, "another class"))
    with _association(port) as association:
        _store(association, 1, patient.patient_id, "1.2.3", whole)
    with _association(port) as association:
        _ask_for_commitment(association, patient)
    for request in _odd_requests(patient):
        with _association(port) as association:
            _send(association, request)
    for garbage in _garbage(patient):
        with _association(port) as association:
            _send(association, garbage)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(garbage)
            time.sleep(SENT_SECONDS)


def _instances(patient: Planted) -> Iterator[tuple[bytes, str]]:
    """Datasets, and the instance UID that the command names."""
    text, uid = patient.patient_id, "1.2.3.4"
    for level in UIDS:
        dataset = identified(patient, f"no {level}")
        _write(dataset, level, "UI", text)
        yield _bytes(dataset), uid
        yield _bytes(dataset), text
    whole = identified(patient, "whole")
    content, own_uid = _bytes(whole), str(whole.SOPInstanceUID)
    yield from ((content, uid), (content, text), (content, patient.birth_date))
    # It ends within the name; it is no dataset at all.
    yield from ((content[:110], own_uid), (patient.name.encode() * 20, text))
    for keyword, vr in NUMBERS_AND_CODES.items():
        dataset = identified(patient, keyword)
        _write(dataset, keyword, vr, text)
        yield _bytes(dataset), str(dataset.SOPInstanceUID)
    for charset in (b"ISO_IR 192", b"ISO_IR 999", text[:10].encode()):
        dataset = identified(patient, str(charset))
        in_another = _bytes(dataset).replace(b"ISO_IR 144", charset)
        yield in_another, str(dataset.SOPInstanceUID)


def _garbage(patient: Planted) -> Iterator[bytes]:
    text = f"{patient.patient_id}^{patient.birth_date}^{patient.name}".encode()
    for kind in (0x01, 0x02, 0x04, 0x07, 0x09):  # PS3.8 9.3: associate, data, abort, and none
        yield struct.pack(">BBL", kind, 0, len(text)) + text
    yield text


def _odd_requests(patient: Planted) -> Iterator[bytes]:
    """Command sets that are text, whose elements are, or whose UIDs are, and too long."""
    text = f"{patient.patient_id}^{patient.birth_date}^{patient.name}".encode()
    yield _pdu(1, LAST_OF_COMMAND, text)
    yield _pdu(1, LAST_OF_COMMAND, _command({0x0100: b"\xff\x7f", 0x1000: text + b" "}))
    yield _pdu(1, LAST_OF_COMMAND, _command({0x0100: text[:16], 0x0110: text[:16]}))
    for request in REQUESTS:
        fields = {0x0100: struct.pack("<H", request), 0x0110: b"\1\0", 0x0800: b"\1\1"}
        for number in (0x0002, 0x0003, 0x0600, 0x1000, 0x1001):
            yield _pdu(1, LAST_OF_COMMAND, _command({**fields, number: text * 3}))


@contextmanager
def _association(port: int) -> Iterator[Association]:
    entity = AE(ae_title="PACS")
    entity.dimse_timeout = entity.acse_timeout = 10
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    entity.add_requested_context(COMMITMENT)
    entity.add_requested_context(MRImageStorage, DeflatedExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="MONRO")
    assert association.is_established
    try:
        yield association
    finally:
        association.abort()


def _store(
    association: Association, context_id: int, sop_class: str, sop_uid: str, dataset: bytes
) -> None:
    command = _command(
        {
            0x0002: _even(sop_class.encode()),
            0x0100: b"\x01\x00",
            0x0110: b"\x01\x00",
            0x0700: b"\x00\x00",
            0x0800: b"\x01\x00",
            0x1000: _even(sop_uid.encode()),
        }
    )
    _send(
        association,
        _pdu(context_id, LAST_OF_COMMAND, command) + _pdu(context_id, LAST_OF_DATASET, dataset),
    )


def _ask_for_commitment(association: Association, patient: Planted) -> None:
    """N-ACTION whose transaction and instances are an ID, which is no UID."""
    item = Dataset()
    _write(item, "ReferencedSOPClassUID", "UI", patient.patient_id)
    _write(item, "ReferencedSOPInstanceUID", "UI", patient.patient_id)
    asked = Dataset()
    _write(asked, "TransactionUID", "UI", patient.patient_id)
    asked.ReferencedSOPSequence = [item]
    association.send_n_action(asked, 1, COMMITMENT, COMMITMENT_INSTANCE)


def _send(association: Association, content: bytes) -> None:
    association.dul.socket.send(content)  # type: ignore[union-attr]
    time.sleep(SENT_SECONDS)


def _pdu(context_id: int, control: int, content: bytes) -> bytes:
    value = struct.pack(">LBB", len(content) + 2, context_id, control) + content
    return struct.pack(">BBL", 0x04, 0, len(value)) + value


def _command(elements: dict[int, bytes]) -> bytes:
    """A command set: group 0000, Implicit VR Little Endian (PS3.7 6.3.1)."""
    body = b"".join(
        struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements.items()
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def _bytes(dataset: Dataset) -> bytes:
    with config.disable_value_validation():
        content = encode(dataset, is_implicit_vr=False, is_little_endian=True)
    assert content is not None
    return content


def _write(dataset: Dataset, keyword: str, vr: str, text: str) -> None:
    """Put text where the VR does not allow it."""
    tag, value = Tag(keyword), text.encode()
    dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
