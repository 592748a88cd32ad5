"""TLS for DICOMweb: a sender may show a certificate, or a token instead."""

import ssl
from typing import Any

from listener.remote import Tls
from listener.tls import ServerTls, client_context


class LatestContext(ssl.SSLContext):
    """Stands for the context of each connection: that of the certificates of the moment.

    One context for good would keep its revocation lists, and go on with sessions that it granted
    to certificates that are refused now.
    """

    latest: ServerTls
    asking: ssl.VerifyMode

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection, as asyncio does."""
        context = self.latest.context
        context.verify_mode = self.asking
        return context.wrap_bio(*args, **options)


def web_context(tls: Tls, *, asks: bool = True) -> ssl.SSLContext:
    """How senders are answered: their certificates are verified where they show one.

    Files that changed are used from the next connection on.

    Args:
        tls: of the settings.
        asks: for certificates; browsers would ask their users for one.

    Raises:
        BadSettings: the files cannot be used.
    """
    context = LatestContext(ssl.PROTOCOL_TLS_SERVER)
    context.latest = ServerTls(tls)
    context.asking = ssl.CERT_OPTIONAL if asks else ssl.CERT_NONE
    return context


def service_context(tls: Tls | None) -> ssl.SSLContext:
    """How services are called: their certificates are verified against our authorities, and ours is
    shown to who asks for it; where we have none, against the system's.

    Raises:
        BadSettings: the files cannot be used.
    """
    return ssl.create_default_context() if tls is None else client_context(tls)
