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


STORED = ""


def store(
    port: int, files: Files | None, paths: Sequence[Path], calling: str, *options: str,
    called: str = "MONRO",
) -> str:  # fmt: skip
    """What DCMTK's storescu complains of; nothing where everything was acknowledged."""
    tls: list[object] = []
    if files is not None:
        tls = ["+tls", files.key, files.certificate, "+cf", files.authorities]
    command = [STORESCU, *tls, *options, "-aet", calling, "-aec", called, "127.0.0.1", port, *paths]
    done = subprocess.run([*map(str, command)], capture_output=True, check=False)
    errors = [line for line in done.stderr.decode().splitlines() if line[:2] in ("E:", "F:")]
    assert (done.returncode == 0) == (not errors), done
    return "\n".join(errors)


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
            assert store(tls_port, scanner, one, "SCANNER", profile) == STORED
        plain_port = hospital.stack.listener_port
        for unheard in (
            store(tls_port, foreign, one, "SCANNER"),  # an authority of its own
            store(tls_port, None, one, "SCANNER"),  # no TLS at the port of TLS
        ):
            assert "Association Request Failed" in unheard
        for refused in (
            store(tls_port, same_house, one, "SCANNER"),  # somebody else's title
            store(tls_port, scanner, one, "UNKNOWN"),
            store(tls_port, same_house, one, "ELSEWHERE"),  # not from its address
            store(plain_port, None, one, "SCANNER"),  # without its certificate
        ):
            assert "Calling AE Title Not Recognized" in refused
        assert "Called AE Title Not Recognized" in store(
            tls_port, scanner, one, "SCANNER", called="OTHER"
        )

        pacs_port = hospital.orthanc.dicom_port
        assert store(pacs_port, scanner, files, "SCANNER", called="PACS") == STORED
        hospital.await_delivery(study_uid)
        assert len(hospital.results(study_uid, tmp_path / "pacs")) == 2
        log = hospital.stack.log("listener").read_text()
    assert "refused a TLS connection" in log
    assert f"rejected an association from SCANNER at 127.0.0.1 with certificate {fingerprint(same_house)}" in log  # noqa: E501  # fmt: skip
