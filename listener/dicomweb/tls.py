"""TLS for DICOMweb: a sender may show a certificate, or a token instead."""

import ssl

from listener.remote import Tls
from listener.tls import ServerTls, client_context, server_context


def web_context(tls: Tls, *, asks: bool = True) -> ssl.SSLContext:
    """How senders are answered: their certificates are verified where they show one.

    Certificates that changed are used from the next connection on. Revocation lists that were not
    there at the start need a restart: whether to look for them belongs to the first context.

    Args:
        tls: of the settings.
        asks: for certificates; browsers would ask their users for one.

    Raises:
        BadSettings: the files cannot be used.
    """
    context, latest = server_context(tls), ServerTls(tls)
    context.verify_mode = ssl.CERT_OPTIONAL if asks else ssl.CERT_NONE

    def renew(connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        connection.context = latest.context

    context.sni_callback = renew  # is called whether or not the sender names a server
    return context


def service_context(tls: Tls | None) -> ssl.SSLContext:
    """How services are called: their certificates are verified against our authorities, and ours is
    shown to who asks for it; where we have none, against the system's.

    Raises:
        BadSettings: the files cannot be used.
    """
    return ssl.create_default_context() if tls is None else client_context(tls)
