"""DICOM over TLS between DCMTK, Orthanc and monro; everybody shows a certificate."""

import hashlib
import json
import ssl
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from deploy.stack import free_ports

STORESCU = "/usr/bin/storescu"  # DCMTK's; pynetdicom has one of the same name


class Files(NamedTuple):
    """A certificate, its key, and who vouches for that of the other side."""

    certificate: Path
    key: Path
    authorities: Path


@pytest.fixture
def member(tmp_path: Path) -> Callable[..., Files]:
    """Gives out certificates; all that come from one authority trust each other."""
    hospital = trustme.CA()

    def give(name: str, authority: trustme.CA = hospital) -> Files:
        files = Files(*(tmp_path / f"{name}.{what}.pem" for what in ("cert", "key", "ca")))
        made = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
        made.cert_chain_pems[0].write_to_path(files.certificate)
        made.private_key_pem.write_to_path(files.key)
        hospital.cert_pem.write_to_path(files.authorities)
        return files

    return give


def store(
    port: int, files: Files | None, paths: Sequence[Path], calling: str, *options: str,
    called: str = "MONRO",
) -> bool:  # fmt: skip
    """Whether DCMTK's storescu got everything acknowledged."""
    tls: list[object] = []
    if files is not None:
        tls = ["+tls", files.key, files.certificate, "+cf", files.authorities]
    command = [STORESCU, *tls, *options, "-aet", calling, "-aec", called, "127.0.0.1", port, *paths]
    done = subprocess.run([str(each) for each in command], capture_output=True, check=False)
    return done.returncode == 0


def fingerprint(files: Files) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(files.certificate.read_text())).hexdigest()


def test_a_study_goes_in_and_its_results_come_back_with_every_step_over_tls(
    a_hospital: Callable[..., Any],
    member: Callable[..., Files],
    shared_data: Path,
    copies: Callable[..., tuple[str, list[Path]]],
    tmp_path: Path,
) -> None:
    ours, pacs, scanner, same_house = map(member, ("monro", "pacs", "scanner", "same-house"))
    foreign = member("foreign", trustme.CA())
    (tls_port,) = free_ports(1)
    peers = [
        {"ae_title": "PACS", "address": "127.0.0.1", "certificate": fingerprint(pacs)},
        {"ae_title": "SCANNER", "certificate": fingerprint(scanner)},
        {"ae_title": "ELSEWHERE", "address": "10.1.2.3"},
    ]
    orthanc = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(pacs.certificate),
        "DicomTlsPrivateKey": str(pacs.key),
        "DicomTlsTrustedCertificates": str(pacs.authorities),
        "DicomModalities": {
            "monro": {"AET": "MONRO", "Host": "127.0.0.1", "Port": tls_port, "UseDicomTls": True}
        },
    }
    tls = {"certificate": ours.certificate, "key": ours.key, "authorities": ours.authorities}
    head = sorted((shared_data / "philips_mprage_sag").glob("*.dcm"))
    _, one = copies(head[:1])
    study_uid, files = copies(head)
    with a_hospital(
        orthanc_changes=orthanc,
        MONRO_TLS=json.dumps(tls, default=str),
        MONRO_TLS_PORT=str(tls_port),
        MONRO_PEERS=json.dumps(peers),
    ) as hospital:
        for profile in ("+py", "+pz"):  # B.10, which is DCMTK's default, and B.11
            assert store(tls_port, scanner, one, "SCANNER", profile)
        assert not store(tls_port, foreign, one, "SCANNER"), "an authority of its own"
        assert not store(tls_port, same_house, one, "SCANNER"), "somebody else's title"
        assert not store(tls_port, scanner, one, "UNKNOWN"), "an unknown title"
        assert not store(tls_port, scanner, one, "SCANNER", called="OTHER"), "not our title"
        assert not store(tls_port, same_house, one, "ELSEWHERE"), "another address"
        assert not store(tls_port, None, one, "SCANNER"), "no TLS at the port of TLS"
        assert not store(hospital.stack.listener_port, None, one, "SCANNER"), "no certificate"

        assert store(hospital.orthanc.dicom_port, scanner, files, "SCANNER", called="PACS")
        hospital.await_delivery(study_uid)
        assert len(hospital.results(study_uid, tmp_path / "pacs")) == 2
        log = hospital.stack.log("listener").read_text()
    assert "refused a TLS connection" in log
    assert f"rejected an association from SCANNER at 127.0.0.1 with certificate {fingerprint(same_house)}" in log  # noqa: E501  # fmt: skip
