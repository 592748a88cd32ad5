"""/metrics, /healthz and /readyz, to be mounted in a web application."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from listener.ledger import Ledger
from listener.monitoring.health import Health, is_well
from listener.monitoring.metrics import ListenerCollector
from listener.monitoring.pulse import Check
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.turned_away import TurnedAway

OK = 200
UNAVAILABLE = 503


def routes(
    settings: ListenerSettings,
    ledger: Ledger,
    spool: Spool,
    health: Health,
    turned_away: TurnedAway,
) -> list[Route]:
    """The three, with figures and checks of one listener.

    Who may ask is for the application to say that mounts them: the checks name no patient and no
    address, the figures neither, but they tell how busy a site is.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(ListenerCollector(settings, ledger, spool, health, turned_away))
    return [
        Route("/metrics", _metrics(registry), methods=["GET"]),
        Route("/healthz", _checks(health.liveness), methods=["GET"]),
        Route("/readyz", _checks(health.readiness), methods=["GET"]),
    ]


def _metrics(registry: CollectorRegistry) -> Callable[[Request], Response]:
    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})

    return metrics


def _checks(look: Callable[[], Sequence[Check]]) -> Callable[[Request], Response]:
    def checks(_request: Request) -> Response:
        found = look()
        well = is_well(found)
        body = {
            "ok": well,
            "checks": {each.name: {"ok": each.ok, "detail": each.detail} for each in found},
        }
        return JSONResponse(body, OK if well else UNAVAILABLE, {"Cache-Control": "no-store"})

    return checks
