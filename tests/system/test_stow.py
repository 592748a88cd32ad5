"""DICOMweb with a real Orthanc, in both directions: it sends by STOW-RS, and so do we."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from deploy.stack import free_ports
from listener.accounting import account
from listener.dicomweb.client import WebClient
from listener.remote import WebService
from listener.spool import Spool

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

Copies = Callable[..., tuple[str, list[Path]]]


@pytest.fixture
def on_the_web(a_hospital: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """A hospital whose PACS speaks DICOMweb with us, and shows a token."""
    assert PLUGIN.exists(), "Orthanc's DICOMweb plugin is missing: `make system-tools` installs it"
    token = tmp_path / "token"
    token.write_text("a secret of Orthanc\n")

    def start(shown: str = "a secret of Orthanc") -> Any:
        (web_port,) = free_ports(1)
        monro = {
            "Url": f"http://127.0.0.1:{web_port}/",
            "HttpHeaders": {"Authorization": f"Bearer {shown}"},
        }
        return a_hospital(
            orthanc_changes={
                "LuaScripts": [],
                "Plugins": [str(PLUGIN)],
                "DicomWeb": {"Enable": True, "Servers": {"monro": monro}},
            },
            MONRO_WEB_PORT=str(web_port),
            MONRO_WEB_SENDERS=json.dumps([{"name": "orthanc", "token_file": str(token)}]),
            MONRO_DESTINATIONS=json.dumps(
                [{"name": "pacs", "url": "http://127.0.0.1:ORTHANC_HTTP/dicom-web"}]
            ),
        )

    return start


def with_contrast(dataset: Dataset) -> None:
    dataset.ContrastBolusAgent = "GADOBUTROL"


def stow(orthanc: Any, study_uid: str) -> dict[str, Any]:
    """Let Orthanc send a study to us; returns its job."""
    query = {"Level": "Study", "Query": {"StudyInstanceUID": study_uid}}
    (study,) = orthanc.post("/tools/find", query)
    order = {"Resources": [study], "Synchronous": False}
    asked = orthanc.post("/dicom-web/servers/monro/stow", order)
    deadline = time.monotonic() + 60
    while True:
        job: dict[str, Any] = orthanc.get(f"/jobs/{asked['ID']}")
        if job["State"] in ("Success", "Failure"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.2)


def test_orthanc_sends_a_study_by_stow_and_gets_its_results_by_stow(
    on_the_web: Callable[..., Any],
    shared_data: Path,
    copies: Copies,
    tmp_path: Path,
    assert_valid: Callable[..., None],
) -> None:
    head = sorted((shared_data / "philips_mprage_sag").glob("*.dcm"))
    study_uid, files = copies(head, with_contrast)
    with on_the_web() as hospital:
        hospital.send(files)
        job = stow(hospital.orthanc, study_uid)
        assert job["State"] == "Success", job

        hospital.await_delivery(study_uid)
        known = hospital.stack.ledger.study(study_uid)
        assert known["reason"].startswith("association released")
        assert {row["message"] for row in known["deliveries"]} == {"shown by the destination"}
        (found,) = account(Spool(hospital.stack.folder / "spool"), hospital.stack.ledger)
        assert (found.agrees, found.on_disk) == (True, len(files))

        results = hospital.results(study_uid, tmp_path / "results")
        overlays = [path for path in results if dcmread(path).Modality == "OT"]
        assert len(overlays) == len(files)
        assert len(results) == sum(row["count"] for row in known["deliveries"])
        assert_valid(results, files)


def test_what_orthanc_shows_and_hands_over_is_what_it_was_sent(
    on_the_web: Callable[..., Any], shared_data: Path, copies: Copies
) -> None:
    study_uid, files = copies(sorted((shared_data / "philips_mprage_sag").glob("*.dcm")))
    sent = {str(dcmread(path).SOPInstanceUID): path.read_bytes() for path in files}
    with on_the_web() as hospital:
        hospital.send(files)
        service = WebService(url=f"{hospital.orthanc.url}/dicom-web")
        with WebClient(service, None, 30) as client:
            (series,) = client.series(study_uid)
            assert (series.modality, series.instances) == ("MR", len(files))
            listed = list(client.instances(study_uid))
            assert {each.sop_uid for each in listed} == set(sent)
            assert {(each.series_uid, each.modality) for each in listed} == {
                (series.series_uid, "MR")
            }
            assert client.searches(study_uid)
            assert list(client.instances("1.2.3")) == []
            came = [b"".join(pieces) for pieces in client.retrieve(study_uid)]
    assert len(came) == len(sent)
    # Orthanc writes its own name into the meta information; the dataset is what was sent.
    assert {content[-2000:] for content in came} == {content[-2000:] for content in sent.values()}


def test_orthanc_with_another_token_is_refused(
    on_the_web: Callable[..., Any], shared_data: Path, copies: Copies
) -> None:
    study_uid, files = copies(sorted((shared_data / "philips_mprage_sag").glob("*.dcm"))[:3])
    with on_the_web(shown="something else") as hospital:
        hospital.send(files)
        assert stow(hospital.orthanc, study_uid)["State"] == "Failure"
        assert hospital.stack.ledger.study(study_uid) is None
        assert "not among MONRO_WEB_SENDERS" in hospital.stack.log("listener").read_text()
