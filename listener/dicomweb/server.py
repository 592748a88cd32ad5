"""The port of the web service: STOW-RS, over HTTPS where we have a certificate."""

from listener.audit.trail import NO_AUDIT, Audit
from listener.dicomweb.service import StoreService
from listener.dicomweb.tls import web_context
from listener.ledger import Ledger
from listener.recorder import Recorder
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.turned_away import Clicker
from listener.web_port import WebPort


class WebServer:
    """Serves STOW-RS until it is stopped.

    Args:
        settings: of the listener; `web_port` is set.
        spool: that takes the instances.
        ledger: that takes their rows.
        audit: that is told.
        turned_away: counts who and what is refused.

    Attributes:
        port: that it is served at.

    Raises:
        CannotListen: the port is taken or not ours.
        BadSettings: the certificate cannot be used.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        spool: Spool,
        ledger: Ledger,
        audit: Audit = NO_AUDIT,
        turned_away: Clicker | None = None,
    ) -> None:
        assert settings.web_port is not None
        self.port = WebPort(
            "STOW-RS",
            settings.bind,
            settings.web_port,
            web_context(settings.tls) if settings.tls is not None else None,
            settings.association_timeout_seconds,
        )
        self._settings, self._spool, self._audit = settings, spool, audit
        self._recorder = Recorder(ledger, audit, turned_away)

    @property
    def is_alive(self) -> bool:
        """Whether it answers."""
        return self.port.is_alive

    def start(self) -> None:
        """Begin to answer, or begin anew."""
        self.port.start(StoreService(self._settings, self._spool, self._recorder, self._audit).app)

    def stop(self) -> None:
        """Answer no more, let requests come to their end, write the last rows."""
        self.port.close()
        self._recorder.close()
