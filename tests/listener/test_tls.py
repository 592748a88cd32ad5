"""TLS with certificates of both sides: who gets in, who does not, and what may change meanwhile."""

import hashlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from listener.caller import call, caller
from listener.delivery import Courier
from listener.entrance import HANDSHAKES_OF_ONE_ADDRESS, Handshakes
from listener.entries import Result
from listener.errors import BadSettings
from listener.ledger import Ledger
from listener.remote import Entity, Tls
from listener.spool import Spool
from listener.tls import CIPHERS, SECTIONS, client_context, server_context
from listener.turned_away import Reason, Service


class Hospital:
    """An authority, and the certificates that it gave out."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self.authority = folder, trustme.CA()

    def tls(
        self,
        name: str,
        host: str = "127.0.0.1",
        kind: trustme.KeyType = trustme.KeyType.ECDSA,
        **changes: Any,
    ) -> Tls:
        """Files of a member of the hospital."""
        paths = [self._folder / f"{name}.{what}.pem" for what in ("cert", "key", "ca")]
        certificate = self.authority.issue_cert(host, key_type=kind)
        certificate.cert_chain_pems[0].write_to_path(paths[0])
        certificate.private_key_pem.write_to_path(paths[1])
        self.authority.cert_pem.write_to_path(paths[2])
        return Tls(certificate=paths[0], key=paths[1], authorities=paths[2], **changes)

    def revoke(self, tls: Tls) -> bytes:
        """A list, signed by the authority, that takes a certificate back."""
        authority = x509.load_pem_x509_certificate(self.authority.cert_pem.bytes())
        key: Any = serialization.load_pem_private_key(
            self.authority.private_key_pem.bytes(), password=None
        )
        serial = x509.load_pem_x509_certificate(tls.certificate.read_bytes()).serial_number
        now = datetime.now(UTC)
        gone = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        return (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.subject)
            .last_update(now - timedelta(hours=1))
            .next_update(now + timedelta(days=1))
            .add_revoked_certificate(gone)
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )


def fingerprint(tls: Tls) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(tls.certificate.read_text())).hexdigest()


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "certificates")


@pytest.fixture
def ours(hospital: Hospital) -> Tls:
    return hospital.tls("monro")


@pytest.fixture
def tls_port(free_port: int) -> int:
    return free_port


@pytest.fixture
def secured(
    tmp_path: Path, ledger: Ledger, listening: Any, ours: Tls, tls_port: int
) -> Callable[..., Any]:
    """A listener with a port for TLS, beside the one without."""

    @contextmanager
    def start(**changes: Any) -> Iterator[Any]:
        values = {"tls": ours, "tls_port": tls_port} | changes
        with listening(Spool(tmp_path / "spool"), ledger, **values) as send:
            yield send

    return start


def associate(port: int, tls: Tls | None, *datasets: Dataset, calling: str = "SENDER") -> Any:
    entity = caller(calling, 5)
    entity.add_requested_context("1.2.840.10008.1.1")
    for dataset in datasets:
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    theirs = Entity(ae_title="MONRO", host="127.0.0.1", port=port, tls=tls is not None)
    return call(entity, theirs, tls)


def is_let_in(port: int, tls: Tls | None, calling: str = "SENDER") -> bool:
    association = associate(port, tls, calling=calling)
    established = bool(association.is_established)
    if established:
        association.release()
    return established


@pytest.mark.parametrize("quick", [True, False])
def test_instances_come_over_tls_as_they_do_without(
    secured: Any, hospital: Hospital, tls_port: int, quick: bool, tmp_path: Path,
    an_mr_slice: Callable[..., Dataset],
) -> None:  # fmt: skip
    slices = [an_mr_slice(study="1.2.3") for _ in range(20)]
    for each in slices:
        each.PixelData = bytes(300_000)  # many records of TLS, two PDUs
    with secured(quick_store=quick):
        association = associate(tls_port, hospital.tls("scanner"), *slices)
        assert [association.send_c_store(each).Status for each in slices] == [0] * len(slices)
        association.release()

    kept = [path.stem for path in (tmp_path / "spool/studies").rglob("*.dcm")]
    assert sorted(kept) == sorted(each.SOPInstanceUID for each in slices)


def test_who_shows_no_certificate_or_a_foreign_one_is_refused_and_others_are_not(
    secured: Any,
    hospital: Hospital,
    tls_port: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stranger = Hospital(tmp_path / "elsewhere").tls("scanner")
    stranger.authorities.write_bytes(hospital.authority.cert_pem.bytes())
    with secured() as listener:
        assert not is_let_in(tls_port, stranger)
        assert not is_let_in(tls_port, None), "without TLS at the port of TLS"
        anonymous = ssl.create_default_context(cafile=str(stranger.authorities))
        with (
            socket.create_connection(("127.0.0.1", tls_port), timeout=5) as connection,
            pytest.raises(OSError),  # TLS 1.3 tells with the first answer
            anonymous.wrap_socket(connection, server_hostname="127.0.0.1") as spoken,
        ):
            assert spoken.recv(1), "the listener hung up"
            raise OSError
        assert is_let_in(tls_port, hospital.tls("scanner"))
    assert caplog.text.count("refused a TLS connection from 127.0.0.1") == 3
    assert listener.refused == {("association", Service.DIMSE, Reason.TLS): 3}


def test_a_peer_with_a_certificate_is_nobody_else_and_never_without_tls(
    secured: Any, hospital: Hospital, tls_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    scanner, other = hospital.tls("scanner"), hospital.tls("other")
    peer = {"ae_title": "SCANNER", "certificate": fingerprint(scanner).upper()}
    with secured(open_node=False, peers=[peer]) as send:
        assert is_let_in(tls_port, scanner, "SCANNER")
        assert not is_let_in(tls_port, scanner, "ANOTHER")
        assert not is_let_in(tls_port, other, "SCANNER")
        assert not is_let_in(send.settings.port, None, "SCANNER")
    assert fingerprint(other) in caplog.text


def test_a_peer_has_no_more_associations_than_it_may(
    secured: Any, hospital: Hospital, tls_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    peers = [{"ae_title": "GREEDY", "max_associations": 2}, {"ae_title": "OTHER"}]
    scanner = hospital.tls("scanner")
    with secured(open_node=False, peers=peers) as send:
        ports = {tls_port: scanner, send.settings.port: None}
        taken = [associate(port, tls, calling="GREEDY") for port, tls in ports.items()]
        assert all(each.is_established for each in taken)
        assert not is_let_in(tls_port, scanner, "GREEDY")
        assert is_let_in(tls_port, scanner, "OTHER")
        taken[0].release()
        deadline = time.monotonic() + 10
        while not is_let_in(tls_port, scanner, "GREEDY"):
            assert time.monotonic() < deadline
        taken[1].release()
    assert "it has 2 already" in caplog.text


def put_in_place_of(old: Tls, new: Tls) -> None:
    """Overwrite the files of one with those of the other."""
    for name in ("certificate", "key", "authorities"):
        getattr(old, name).write_bytes(getattr(new, name).read_bytes())


def test_certificates_are_exchanged_without_a_restart(
    secured: Any,
    ours: Tls,
    hospital: Hospital,
    tls_port: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    old, merged = hospital.tls("scanner"), Hospital(tmp_path / "merged hospitals")
    new = merged.tls("scanner")
    with secured():
        assert is_let_in(tls_port, old)
        ours.key.write_text("half a key")
        assert is_let_in(tls_port, old), "what is broken does not replace what works"
        put_in_place_of(ours, merged.tls("monro"))
        assert not is_let_in(tls_port, old)
        assert is_let_in(tls_port, new)
    assert "the certificate in use stays: MONRO_TLS: certificate" in caplog.text


def test_whom_we_call_sees_our_new_certificate_without_a_restart(
    ours: Tls, free_port: int, tmp_path: Path
) -> None:
    merged = Hospital(tmp_path / "merged hospitals")
    pacs = AE(ae_title="MONRO")
    pacs.add_supported_context("1.2.840.10008.1.1")
    context = server_context(merged.tls("pacs"))
    server = pacs.start_server(("127.0.0.1", free_port), block=False, ssl_context=context)
    assert server is not None
    try:
        assert not is_let_in(free_port, ours), "of another authority"
        put_in_place_of(ours, merged.tls("monro"))
        assert is_let_in(free_port, ours)
    finally:
        server.shutdown()


def test_a_certificate_that_was_taken_back_is_refused(
    secured: Any, ours: Tls, hospital: Hospital, tls_port: int
) -> None:
    stolen, sound = hospital.tls("stolen"), hospital.tls("sound")
    ours.authorities.write_bytes(ours.authorities.read_bytes() + hospital.revoke(stolen))
    with secured():
        assert not is_let_in(tls_port, stolen)
        assert is_let_in(tls_port, sound)


def test_who_never_shakes_hands_holds_up_nobody_and_is_left(
    secured: Any, hospital: Hospital, tls_port: int
) -> None:
    with secured(association_timeout_seconds=2):
        with socket.create_connection(("127.0.0.1", tls_port), timeout=20) as silent:
            assert is_let_in(tls_port, hospital.tls("scanner"))
            begun = time.monotonic()
            assert silent.recv(1) == b""
        assert time.monotonic() - begun < 10


def test_one_address_cannot_keep_others_out_by_opening_many(
    secured: Any, hospital: Hospital, tls_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handshakes = Handshakes()
    taken = [handshakes.begin("10.0.0.66") for _ in range(300)]
    assert taken.count(True) == HANDSHAKES_OF_ONE_ADDRESS
    assert handshakes.begin("10.0.0.5")
    handshakes.end("10.0.0.66")
    assert handshakes.begin("10.0.0.66")

    monkeypatch.setattr("listener.entrance.HANDSHAKE_SECONDS", 1.0)
    with secured(), ExitStack() as silent:
        for _ in range(2 * HANDSHAKES_OF_ONE_ADDRESS):
            address = ("127.0.0.1", tls_port)
            silent.enter_context(socket.create_connection(address, timeout=5))
        time.sleep(0.5)
        assert not is_let_in(tls_port, hospital.tls("scanner"))
        time.sleep(1)
        assert is_let_in(tls_port, hospital.tls("scanner")), "their time is over"


def test_each_profile_has_its_section_of_the_standard() -> None:
    profiles = get_args(Tls.model_fields["profile"].annotation)
    assert set(profiles) == set(CIPHERS) == set(SECTIONS)


@pytest.mark.parametrize("profile", CIPHERS)
def test_profiles_speak_with_what_they_list_and_with_nothing_weaker(
    hospital: Hospital, profile: str
) -> None:
    server = server_context(hospital.tls("server", profile=profile))
    of_rsa = server_context(hospital.tls("rsa", kind=trustme.KeyType.RSA, profile=profile))
    client = client_context(hospital.tls("client"))
    version = "TLSv1.2" if profile == "bcp195-extended" else "TLSv1.3"
    assert negotiated(server, client) == version
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    for cipher in CIPHERS[profile]:
        client.set_ciphers(cipher)
        assert negotiated(server if "ECDSA" in cipher else of_rsa, client) == "TLSv1.2", cipher
    client.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    assert negotiated(server, client) is None
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2


def negotiated(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """The version that two sides agree on, in memory; None where they do not."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
    ]
    for _ in range(6):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return None
    return sides[0].version()


@pytest.mark.parametrize("damage", ["missing", "not PEM", "another key", "encrypted"])
def test_files_that_are_of_no_use_are_named_at_the_start(
    hospital: Hospital, secured: Any, ours: Tls, damage: str
) -> None:
    if damage == "missing":
        ours.certificate.unlink()
    elif damage == "not PEM":
        ours.certificate.write_text("nothing")
    elif damage == "another key":
        ours.key.write_bytes(hospital.tls("other").key.read_bytes())
    else:
        key = serialization.load_pem_private_key(ours.key.read_bytes(), password=None)
        ours.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            )
        )
    with pytest.raises(BadSettings, match=f"MONRO_TLS: certificate {ours.certificate}"):
        server_context(ours)
    with pytest.raises(BadSettings), secured():
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "another-host"])
def test_results_go_over_tls_to_whom_the_certificate_names_only(
    hospital: Hospital, ours: Tls, outbox: list[Result], ledger: Ledger, settings_for: Any,
    host: str,
) -> None:  # fmt: skip
    pacs = hospital.tls("pacs", host)
    settings = settings_for(tls=ours, destinations=[{
        "name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "tls": True, "confirm": "none",
        "port": settings_for().port}])  # fmt: skip
    entity = AE(ae_title="PACS")
    for result in outbox:
        entity.add_supported_context(result.sop_class)
    server = entity.start_server(
        ("127.0.0.1", settings.destinations[0].port), block=False,
        ssl_context=server_context(pacs), evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0)],
    )  # fmt: skip
    assert server is not None
    try:
        courier = Courier(settings.destinations[0], settings, ledger)
        courier.deliver_due()
    finally:
        server.shutdown()
    rows = (ledger.study("1") or {})["deliveries"]
    expected = {"SENT"} if host == "127.0.0.1" else {"PENDING"}
    assert {row["state"] for row in rows if row["attempts"]} == expected
