"""Whether those that we talk with answer at present, for somebody who waits for it."""

from typing import Final

from listener.caller import call, caller
from listener.dicomweb.client import WebClient
from listener.errors import ServiceFailed
from listener.remote import Entity, WebService
from listener.settings import ListenerSettings

VERIFICATION: Final = "1.2.840.10008.1.1"
SUCCESS: Final = 0x0000

PATIENCE_SECONDS: Final = 5.0

NO_STUDY: Final = "2.25.0"
"""A UID that nobody gives to a study: to ask for it costs a service nothing."""


def answers(remote: Entity | WebService, settings: ListenerSettings) -> bool:
    """Tell whether a destination or source answers now, by C-ECHO or QIDO-RS."""
    if isinstance(remote, WebService):
        with WebClient(remote, settings.tls, PATIENCE_SECONDS) as client:
            try:
                client.searches(NO_STUDY)
            except ServiceFailed:
                return False
        return True
    entity = caller(settings.ae_title, PATIENCE_SECONDS)
    entity.add_requested_context(VERIFICATION)
    try:
        association = call(entity, remote, settings.tls)
    except OSError:
        return False
    if not association.is_established:
        return False
    try:
        return bool(association.send_c_echo().get("Status") == SUCCESS)
    finally:
        association.release()
