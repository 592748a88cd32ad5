"""The web service as senders see it: who may store, when there is room, and what they are told."""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Final

import anyio
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from listener.audit.tally import Party
from listener.audit.trail import NO_AUDIT, Audit
from listener.dicomweb.admission import ANYBODY, NotAdmitted, admit
from listener.dicomweb.multipart import DICOM, RELATED, BadMultipart, media_type
from listener.dicomweb.representation import WRITERS, chosen
from listener.dicomweb.store import Intake, Status, answer_to, status_of
from listener.entrance import V4_MAPPED
from listener.errors import BadAttribute, where
from listener.pace import Pace
from listener.recorder import Recorder
from listener.series import require_uid
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.turned_away import Reason, Service

log = logging.getLogger(__name__)

COME_AGAIN: Final = {"Retry-After": "60"}
"""In seconds: room is not made, and studies are not received, in less."""


class Refused(Exception):
    """A request is answered without its body being read."""

    def __init__(
        self,
        reason: Reason,
        status: Status,
        message: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, status, message, headers)
        self.reason, self.status, self.message, self.headers = reason, status, message, headers


class TooSlow(Exception):
    """The body of a request comes too slowly; the message says how slowly."""


class StoreService:
    """Answers STOW-RS requests (PS3.18 10.5).

    Args:
        settings: of the listener.
        spool: that takes the instances.
        recorder: takes their rows.
        audit: that is told who was refused.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        spool: Spool,
        recorder: Recorder,
        audit: Audit = NO_AUDIT,
    ) -> None:
        self._settings, self._spool = settings, spool
        self._recorder, self._audit = recorder, audit
        self._served, self._served_of = 0, Counter[str]()

    @property
    def app(self) -> Starlette:
        """The service as an ASGI application."""
        paths = ("/studies", "/studies/{study}")
        return Starlette(
            routes=[Route(path, self.store, methods=["POST"]) for path in paths],
            exception_handlers={HTTPException: _not_ours},
        )

    async def store(self, request: Request) -> Response:
        """Answer one request."""
        self._served += 1
        intake = None
        try:
            sender, most = await run_sync(self._admit, request)
            with self._one_of(sender.name, most):
                intake = await run_sync(self._open, request, sender)
                return await self._receive(request, intake)
        except Refused as refusal:
            self._recorder.turned_away.association(Service.STOW, refusal.reason)
            return _said(refusal.status, refusal.message, refusal.headers)
        except ClientDisconnect:
            log.warning("a connection broke within a STOW-RS request")
            return _said(Status.BAD_REQUEST, "the body broke off")  # to nobody
        except TooSlow as slowness:
            log.warning("a STOW-RS request was given up: %s", slowness)
            return _said(Status.TOO_SLOW, str(slowness), {"Connection": "close"})
        except Exception as error:  # noqa: BLE001 - the sender must get an answer, and keep its copy
            log.error("a STOW-RS request was given up: %s", where(error))
            self._recorder.turned_away.association(Service.STOW, Reason.INTERNAL)
            return _said(Status.UNFORESEEN, "the listener's log says why")
        finally:
            self._served -= 1
            if intake is not None:
                intake.close()

    async def _receive(self, request: Request, intake: Intake) -> Response:
        """Take the body; every piece of it is on its way to the disk before the next is awaited."""
        torn: BadMultipart | None = None
        try:
            async with aclosing(self._pieces(request)) as pieces:
                async for piece in pieces:
                    await run_sync(intake.feed, piece)
            intake.finish()
        except BadMultipart as error:
            torn = error
            await run_sync(intake.fail, error)
        status = status_of(intake.outcomes)
        if status == Status.NONE_KEPT and torn is not None:
            return _said(Status.BAD_REQUEST, str(torn))
        if status == Status.BAD_REQUEST:
            return _said(status, "a body without any part")
        headers = COME_AGAIN if status == Status.COME_AGAIN else None
        wanted = _wanted(request)
        written = WRITERS[wanted](answer_to(intake.outcomes))
        return Response(written, status, headers, media_type=wanted)

    async def _pieces(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The body as it comes.

        Raises:
            TooSlow: nothing came for too long, or too little.
            ClientDisconnect: the connection broke.
        """
        seconds = self._settings.association_timeout_seconds
        pace = Pace.of_sender(self._settings)
        stream = request.stream()
        while True:
            with anyio.move_on_after(min(seconds, pace.seconds_left)) as waiting:
                piece = await anext(stream, None)
            if waiting.cancelled_caught:
                raise TooSlow(
                    f"nothing came for {seconds:g} s"
                    if pace.seconds_left > 0
                    else f"less than {self._settings.least_rate} bytes a second came"
                )
            if piece is None:
                return
            if piece:
                pace.note(len(piece))
                yield piece

    @contextmanager
    def _one_of(self, sender: str, most: int | None) -> Iterator[None]:
        """Count a request among those of its sender.

        Raises:
            Refused: they are more than it may have at a time.
        """
        self._served_of[sender] += 1
        try:
            if most is not None and self._served_of[sender] > most:
                log.warning(
                    "refused a STOW-RS request from %s for now: it has %d already; raise its "
                    "max_requests in MONRO_WEB_SENDERS if this is usual",
                    sender,
                    most,
                )
                enough = "too many requests of yours are served at present"
                raise Refused(Reason.ENOUGH, Status.COME_AGAIN, enough, COME_AGAIN)
            yield
        finally:
            self._served_of[sender] -= 1

    def _open(self, request: Request, sender: Party) -> Intake:
        """Begin to take what a request brings.

        Raises:
            Refused: we do not.
        """
        _wanted(request)
        study_uid = request.path_params.get("study")
        kind, options = media_type(request.headers.get("content-type"))
        if (kind, options.get("type", DICOM).lower()) != (RELATED, DICOM):
            raise Refused(
                Reason.MALFORMED, Status.NOT_TAKEN, f'send instances as {RELATED}; type="{DICOM}"'
            )
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(
                Reason.MALFORMED, Status.NOT_TAKEN, "send the body without a Content-Encoding"
            )
        try:
            if study_uid is not None:
                require_uid("StudyInstanceUID", study_uid)
            boundary = options.get("boundary", "").encode("latin-1")
            largest = self._settings.largest_instance
            intake = Intake(self._spool, self._recorder, sender, study_uid, boundary, largest)
        except (BadAttribute, BadMultipart) as error:
            raise Refused(Reason.MALFORMED, Status.BAD_REQUEST, str(error)) from None
        self._require_room(request, sender.name)
        return intake

    def _admit(self, request: Request) -> tuple[Party, int | None]:
        """Who sends a request, and how many it may send at a time.

        Raises:
            Refused: nobody whom we know.
        """
        address = address_of(request)
        if self._settings.open_node:
            return Party(ANYBODY, address, is_ae=False), None
        try:
            sender = admit(
                self._settings.web_senders,
                address,
                request.state.certificate,
                request.headers.get("authorization"),
            )
        except NotAdmitted as error:
            log.warning("refused a STOW-RS request: %s", error)
            self._audit.rejected(Party("unknown", address, is_ae=False), f"STOW-RS: {error.found}")
            if error.needs_token:
                asked = {"WWW-Authenticate": "Bearer"}
                raise Refused(
                    Reason.UNKNOWN, Status.NO_TOKEN, "show a bearer token", asked
                ) from None
            unknown = "this address or certificate may not send"
            raise Refused(Reason.UNKNOWN, Status.NOT_ADMITTED, unknown) from None
        return Party(sender.name, address, is_ae=False), sender.max_requests

    def _require_room(self, request: Request, sender: str) -> None:
        if self._served > self._settings.max_associations:
            log.warning(
                "refused a STOW-RS request from %s for now: %d are served; raise "
                "MONRO_MAX_ASSOCIATIONS if this is usual",
                sender,
                self._settings.max_associations,
            )
            busy = "too many requests are served at present"
            raise Refused(Reason.BUSY, Status.COME_AGAIN, busy, COME_AGAIN)
        length = request.headers.get("content-length", "")
        wanted = max(self._settings.room_for_study, int(length) if length.isdecimal() else 0)
        if not self._spool.has_room_for(wanted):
            log.error(
                "refused a STOW-RS request from %s for now: the spool's disk has %d bytes free; "
                "make room, or lower MONRO_KEEP_FREE or MONRO_ROOM_FOR_STUDY",
                sender,
                self._spool.free_bytes(),
            )
            full = "there is no room at present"
            raise Refused(Reason.FULL, Status.COME_AGAIN, full, COME_AGAIN)


def _wanted(request: Request) -> str:
    """The media type that a request is to be answered in.

    Raises:
        Refused: it takes none of ours.
    """
    wanted = chosen(", ".join(request.headers.getlist("accept")))
    if wanted is None:
        raise Refused(
            Reason.MALFORMED,
            Status.NOT_ACCEPTABLE,
            f"the answer comes as {' or '.join(WRITERS)}; name one of them in Accept, or leave "
            "Accept out",
        )
    return wanted


def _said(
    status: Status, message: str, headers: Mapping[str, str] | None = None
) -> PlainTextResponse:
    """An answer for people."""
    return PlainTextResponse(message, status, headers)


async def _not_ours(_request: Request, error: Exception) -> Response:
    """Answer a request that has no service here, or another method."""
    assert isinstance(error, HTTPException)
    return _said(Status(error.status_code), error.detail, error.headers)


def address_of(request: Request) -> str:
    """Where a request comes from; IPv4 as such where both versions are listened to."""
    host = request.client.host if request.client else ""
    return host.removeprefix(V4_MAPPED) if "." in host else host
