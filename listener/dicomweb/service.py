"""The web service as senders see it: who may store, when there is room, and what they are told."""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

import anyio
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from listener.audit.tally import Party
from listener.audit.trail import NO_AUDIT, Audit
from listener.dicomweb.admission import ANYBODY, NotAdmitted, admit
from listener.dicomweb.answers import NAMES, wanted, written
from listener.dicomweb.multipart import DICOM, RELATED, BadMultipart, media_type
from listener.dicomweb.store import Intake, answer_to, status_of
from listener.entrance import V4_MAPPED
from listener.errors import BadAttribute, where
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
        self, reason: Reason, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason, status, message, headers)
        self.reason, self.status, self.message, self.headers = reason, status, message, headers


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
        self._served = 0

    @property
    def app(self) -> Starlette:
        """The service as an ASGI application."""
        paths = ("/studies", "/studies/{study}")
        return Starlette(routes=[Route(path, self.store, methods=["POST"]) for path in paths])

    async def store(self, request: Request) -> Response:
        """Answer one request."""
        self._served += 1
        intake = None
        try:
            intake = await run_sync(self._open, request)
            return await self._receive(request, intake, _form(request))
        except Refused as refusal:
            self._recorder.turned_away.association(Service.STOW, refusal.reason)
            return PlainTextResponse(refusal.message, refusal.status, refusal.headers)
        except ClientDisconnect:
            log.warning("a connection broke within a STOW-RS request")
            return Response(status_code=400)  # to nobody
        except TimeoutError:
            seconds = self._settings.association_timeout_seconds
            log.warning("a STOW-RS request was given up: nothing came for %g s", seconds)
            closing = {"Connection": "close"}
            return PlainTextResponse(f"nothing came for {seconds:g} s", 408, closing)
        except Exception as error:  # noqa: BLE001 - the sender must get an answer, and keep its copy
            log.error("a STOW-RS request was given up: %s", where(error))
            self._recorder.turned_away.association(Service.STOW, Reason.INTERNAL)
            return PlainTextResponse("the listener's log says why", 500)
        finally:
            self._served -= 1
            if intake is not None:
                intake.close()

    async def _receive(self, request: Request, intake: Intake, form: str) -> Response:
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
        if status == 409 and torn is not None:
            return PlainTextResponse(str(torn), 400)
        if status == 400:
            return PlainTextResponse("a body without any part", 400)
        headers = COME_AGAIN if status == 503 else None
        return Response(written(answer_to(intake.outcomes), form), status, headers, form)

    async def _pieces(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The body as it comes.

        Raises:
            TimeoutError: nothing came for too long.
            ClientDisconnect: the connection broke.
        """
        stream = request.stream()
        while True:
            with anyio.fail_after(self._settings.association_timeout_seconds):
                piece = await anext(stream, None)
            if piece is None:
                return
            if piece:
                yield piece

    def _open(self, request: Request) -> Intake:
        """Begin to take what a request brings.

        Raises:
            Refused: we do not.
        """
        sender = self._admit(request)
        study_uid = request.path_params.get("study")
        kind, options = media_type(request.headers.get("content-type"))
        if (kind, options.get("type", DICOM).lower()) != (RELATED, DICOM):
            raise Refused(Reason.MALFORMED, 415, f'send instances as {RELATED}; type="{DICOM}"')
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(Reason.MALFORMED, 415, "send the body without a Content-Encoding")
        try:
            if study_uid is not None:
                require_uid("StudyInstanceUID", study_uid)
            boundary = options.get("boundary", "").encode("latin-1")
            largest = self._settings.largest_instance
            intake = Intake(self._spool, self._recorder, sender, study_uid, boundary, largest)
        except (BadAttribute, BadMultipart) as error:
            raise Refused(Reason.MALFORMED, 400, str(error)) from None
        self._require_room(request, sender.name)
        return intake

    def _admit(self, request: Request) -> Party:
        address = address_of(request)
        if self._settings.open_node:
            return Party(ANYBODY, address, is_ae=False)
        try:
            name = admit(
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
                raise Refused(Reason.UNKNOWN, 401, "show a bearer token", asked) from None
            raise Refused(Reason.UNKNOWN, 403, "this address or certificate may not send") from None
        return Party(name, address, is_ae=False)

    def _require_room(self, request: Request, sender: str) -> None:
        if self._served > self._settings.max_associations:
            log.warning(
                "refused a STOW-RS request from %s for now: %d are served; raise "
                "MONRO_MAX_ASSOCIATIONS if this is usual",
                sender,
                self._settings.max_associations,
            )
            raise Refused(Reason.BUSY, 503, "too many requests are served at present", COME_AGAIN)
        length = request.headers.get("content-length", "")
        wanted = max(self._settings.room_for_study, int(length) if length.isdecimal() else 0)
        if not self._spool.has_room_for(wanted):
            log.error(
                "refused a STOW-RS request from %s for now: the spool's disk has %d bytes free; "
                "make room, or lower MONRO_KEEP_FREE or MONRO_ROOM_FOR_STUDY",
                sender,
                self._spool.free_bytes(),
            )
            raise Refused(Reason.FULL, 503, "there is no room at present", COME_AGAIN)


def _form(request: Request) -> str:
    """The media type that the sender reads.

    Raises:
        Refused: it reads none that we write.
    """
    form = wanted(request.headers.get("accept"))
    if form is None:
        raise Refused(Reason.MALFORMED, 406, f"answers are {' or '.join(NAMES)}: accept one")
    return form


def address_of(request: Request) -> str:
    """Where a request comes from; IPv4 as such where both versions are listened to."""
    host = request.client.host if request.client else ""
    return host.removeprefix(V4_MAPPED) if "." in host else host
