"""Storage commitment with a real Orthanc, in both directions."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import generate_uid

Copies = Callable[..., tuple[str, list[Path]]]


def commitment(orthanc: Any, named: list[list[str]]) -> dict[str, Any]:
    """Let Orthanc ask monro whether it has these; returns the report that it got."""
    asked = orthanc.post("/modalities/monro/storage-commitment", {"DicomInstances": named})
    deadline = time.monotonic() + 30
    while True:
        report: dict[str, Any] = orthanc.get(f"/storage-commitment/{asked['ID']}")
        if report["Status"] != "Pending":
            return report
        assert time.monotonic() < deadline, report
        time.sleep(0.2)


def test_orthanc_commits_to_our_results_and_we_to_what_it_sent(
    hospital: Any, shared_data: Path, copies: Copies
) -> None:
    study_uid, files = copies(sorted((shared_data / "philips_mprage_sag").glob("*.dcm")))
    hospital.send(files)
    hospital.await_delivery(study_uid)

    # It commits to us: `await_delivery` waits for that.
    told = {row["message"] for row in hospital.stack.ledger.study(study_uid)["deliveries"]}
    assert told == {"committed to by the destination"}

    # We commit to it, and name the one that it never sent.
    sent = [
        [str(header.SOPClassUID), str(header.SOPInstanceUID)]
        for header in (dcmread(path, stop_before_pixels=True) for path in files)
    ]
    assert commitment(hospital.orthanc, sent)["Status"] == "Success"

    stranger = [sent[0][0], str(generate_uid())]
    report = commitment(hospital.orthanc, [*sent, stranger])
    assert report["Status"] == "Failure"
    assert len(report["Success"]) == len(sent)
    (failure,) = report["Failures"]
    assert failure["SOPInstanceUID"] == stranger[1]
    assert failure["FailureReason"] == 0x0112
