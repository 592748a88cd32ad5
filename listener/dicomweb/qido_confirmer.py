"""Was it kept? Asked of a DICOMweb service by QIDO-RS (PS3.18 10.6)."""

from collections.abc import Sequence
from itertools import groupby

from listener.confirmation import Confirmer
from listener.dicomweb.client import WebClient
from listener.entries import Sent
from listener.errors import ServiceFailed
from listener.ledger import Ledger
from listener.remote import WebDestination
from listener.settings import ListenerSettings


class QidoConfirmer(Confirmer):
    """Asks one DICOMweb service what it kept."""

    def __init__(
        self, destination: WebDestination, settings: ListenerSettings, ledger: Ledger
    ) -> None:
        super().__init__(destination, settings, ledger)
        self._service, self._tls = destination, settings.tls
        self._timeout_seconds = settings.association_timeout_seconds

    def _confirm(self, sent: Sequence[Sent]) -> bool:
        with WebClient(self._service, self._tls, self._timeout_seconds) as client:
            try:
                if not client.searches(sent[0].study_uid):
                    self._take_at_its_word(sent, "QIDO-RS")
                    return True
            except ServiceFailed as error:
                self._postpone(sent, f"the destination does not answer: {error.found}")
                return False
            return all(
                self._look(client, list(of_series))
                for _uid, of_series in groupby(sent, key=lambda each: each.series_uid)
            )

    def _look(self, client: WebClient, sent: Sequence[Sent]) -> bool:
        """Ask what the service has of one series."""
        try:
            listed = client.instances(sent[0].study_uid, sent[0].series_uid)
            held = {each.sop_uid for each in listed}
        except ServiceFailed as error:
            self._postpone(sent, f"the destination does not tell what it has: {error.found}")
            return False
        self._note_shown(sent, held)
        return True
