"""Everything odd is received, accounted for, and refused or ignored with a reason."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, AllStoragePresentationContexts, _config

from listener.caller import call
from listener.ledger import OWN_RESULT
from listener.remote import Entity

STORAGE = {context.abstract_syntax for context in AllStoragePresentationContexts}


@pytest.fixture
def raw_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send files as they are, whatever is wrong with them."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


def sendable(folder: Path) -> list[Path]:
    """Files that can travel by C-STORE: a storage class, and the meta information for it.

    A DICOMDIR, for one, belongs to no storage class that is ever negotiated.
    """
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            meta = read_file_meta_info(path)
        except Exception:  # noqa: BLE001 - anything may be wrong with these files
            continue
        if meta.get("MediaStorageSOPClassUID") in STORAGE and "TransferSyntaxUID" in meta:
            files.append(path)
    return files


@pytest.mark.filterwarnings("ignore")  # pydicom's, about the files
def test_every_odd_file_is_answered_and_every_acknowledged_one_accounted_for(
    hospital: Any, shared_data: Path, raw_bytes: None
) -> None:
    acknowledged: dict[str, set[str]] = defaultdict(set)
    statuses: Counter[int] = Counter()
    for path in sendable(shared_data / "odd"):
        status = send(path, hospital.stack.listener_port)
        statuses[status] += 1
        if status == 0x0000:
            header = dcmread(path, stop_before_pixels=True)
            acknowledged[str(header.StudyInstanceUID)].add(str(header.SOPInstanceUID))

    assert statuses[0x0000] > 80
    assert set(statuses) <= {0x0000, 0xC000}
    assert hospital.stack.stopped() == []
    for study_uid, instances in acknowledged.items():
        hospital.await_that(lambda uid=study_uid: settled(hospital, uid), 120, study_uid)
        rows = hospital.stack.ledger.study(study_uid)["instances"]
        received = sum(row["count"] for row in rows if row["state"] != "quarantined")
        ours = sum(row["count"] for row in rows if row["reason"] == OWN_RESULT)
        assert received - ours == len(instances)
        assert all(row["reason"] for row in rows)


def settled(hospital: Any, study_uid: str) -> bool:
    known = hospital.stack.ledger.study(study_uid)
    return bool(
        known
        and known["planned_revision"]
        and known["state"] == "COMPLETE"
        and all(row["state"] != "waiting" for row in known["instances"])
    )


def send(path: Path, port: int) -> int:
    meta = read_file_meta_info(path)
    entity = AE(ae_title="PACS")
    entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = call(entity, Entity(ae_title="MONRO", host="127.0.0.1", port=port), None)
    assert association.is_established, f"no association for {path.name}"
    try:
        return int(association.send_c_store(path).Status)
    finally:
        association.release()
