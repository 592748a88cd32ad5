"""Our application entity as one that calls others: how long it waits for them."""

from pynetdicom import AE


def caller(ae_title: str, timeout_seconds: float) -> AE:
    """An application entity that waits so long for a connection, an answer, or the next PDU."""
    entity = AE(ae_title=ae_title)
    entity.acse_timeout = entity.dimse_timeout = timeout_seconds
    entity.network_timeout = entity.connection_timeout = timeout_seconds
    return entity
