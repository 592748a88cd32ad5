"""The console's port: its application, and the thread that learns the patients' names."""

from collections.abc import Sequence

from starlette.routing import BaseRoute

from listener.audit.trail import Audit
from listener.console.app import create_app
from listener.console.gate.gate import Gate
from listener.console.gate.hops import Proxies
from listener.console.patients import Patients
from listener.console.wellbeing import Look
from listener.dicomweb.tls import web_context
from listener.ledger import Ledger
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.web_port import WebPort


class ConsoleServer:
    """Serves the console until it is stopped.

    Args:
        settings: of the listener; `console_port` is set.
        ledger: that is shown.
        spool: whose files are shown.
        audit: that is told.
        extra_routes: of others, such as /metrics and /healthz.
        look: tries whether the listener is well.

    Attributes:
        port: that it is served at.

    Raises:
        CannotListen: the port is taken or not ours.
        BadSettings: the certificate cannot be used.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        ledger: Ledger,
        spool: Spool,
        audit: Audit,
        extra_routes: Sequence[BaseRoute] = (),
        look: Look = tuple,
    ) -> None:
        assert settings.console_port is not None
        self.port = WebPort(
            "the console",
            settings.bind,
            settings.console_port,
            web_context(settings.tls, asks=False) if settings.tls is not None else None,
            settings.association_timeout_seconds,
            Proxies(settings.console_proxies).has,
        )
        self._patients = Patients(ledger)
        gate = Gate(ledger, settings, audit)
        self._app = create_app(
            settings, ledger, spool, audit, gate, self._patients, extra_routes, look
        )

    @property
    def is_alive(self) -> bool:
        """Whether it answers."""
        return self.port.is_alive

    def start(self) -> None:
        """Begin to answer, or begin anew."""
        self._patients.start()
        self.port.start(self._app)

    def stop(self) -> None:
        """Answer no more."""
        self.port.close()
        self._patients.stop()
