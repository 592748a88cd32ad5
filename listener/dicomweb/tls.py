"""TLS for DICOMweb: what is offered, whom we trust, and the certificate that a sender shows."""

import ssl

from listener.remote import Tls


def server_context(tls: Tls) -> ssl.SSLContext:
    """How senders are answered: with our certificate, and theirs verified where they show one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(tls: Tls | None) -> ssl.SSLContext:
    """How services are called: their certificates verified against our authorities, or the system's
    where we have none, and ours shown to who asks for it.
    """
    context = ssl.create_default_context(cafile=tls.authorities if tls else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
