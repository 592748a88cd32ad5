"""Another's DICOMweb services, asked by us: STOW-RS, QIDO-RS and WADO-RS (PS3.18 10.4 to 10.6).

Instances are streamed in both directions: what is held in memory is a piece of one. Redirects are
not followed, so a token goes nowhere but to the address in the settings.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar
from weakref import WeakSet

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError

from listener.dicomweb.model import (
    FAILED_SEQUENCE,
    FAILURE_REASON,
    INSTANCES_OF_SERIES,
    JSON,
    MODALITY,
    REFERENCED_INSTANCE,
    REFERENCED_SEQUENCE,
    SERIES,
    SOP_CLASS,
    SOP_INSTANCE,
    WARNING_REASON,
    Attributes,
    items_in,
    items_of,
    text_of,
)
from listener.dicomweb.multipart import (
    DICOM,
    PIECE_BYTES,
    RELATED,
    BadMultipart,
    MultipartFiles,
    in_words,
    media_type,
    parts,
)
from listener.dicomweb.tls import service_context
from listener.dicomweb.watchdog import Sockets, Watchdog, watched_pool
from listener.errors import BadAttribute, BadSettings, ServiceFailed
from listener.pace import PROGRESS_TIMEOUTS
from listener.remote import Tls, WebService
from listener.series import require_uid

AS_STORED: Final = f'{RELATED}; type="{DICOM}"; transfer-syntax=*'

# RFC 9110 and 6585: the same request may succeed later; and that of the 5xx which will not.
TEMPORARY: Final = frozenset({408, 425, 429})
NEVER: Final = frozenset({501, 505})

# Of a service that takes instances and shows none.
NO_SUCH_SERVICE: Final = frozenset({404, 405, 501})

# PS3.18 10.5.3: the answer says what became of each instance, or should.
STORE_ANSWERS: Final = frozenset({200, 202, 409})

# PS3.18 8.5 and 10.6.3: some say 404 of what they do not have; and 206 of a page among more.
FOUND: Final = frozenset({200, 206})
NOTHING_FOUND: Final = frozenset({204, 404})

MOST_LISTED: Final = 50_000
"""Of one search. The largest studies have some ten thousand instances."""

MOST_PAGES: Final = 2000
"""Of one search: some services give ten objects at a time."""

# Of a search (PS3.18 10.6), asked for at a time.
PAGE: Final = 1000
LARGEST_PAGE_BYTES: Final = 64 << 20

LARGEST_STORE_ANSWER_BYTES: Final = 1 << 20
"""Of what became of each instance; it is read as a whole."""

# What reading an answer raises that is no such thing.
UNINTELLIGIBLE: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

Listed = TypeVar("Listed", "SeriesListed", "InstanceListed")


@dataclass(frozen=True)
class SeriesListed:
    """A series that a service has; `instances` is None where it does not count them."""

    series_uid: str
    modality: str
    instances: int | None


@dataclass(frozen=True)
class InstanceListed:
    """An instance that a service has."""

    series_uid: str
    sop_uid: str
    sop_class: str
    modality: str


@dataclass(frozen=True)
class Stored:
    """What a service made of instances that it was sent.

    Attributes:
        status: of HTTP: 200 all kept, 202 some, 409 none.
        kept: instance UID to warning reason, 0 for none.
        failed: instance UID to failure reason, 0 where none was given.
    """

    status: int
    kept: Mapping[str, int]
    failed: Mapping[str, int]

    def keeps(self, sop_uid: str) -> bool:
        """Whether an instance was kept; a service that kept all need not name them."""
        return sop_uid in self.kept or (self.status == 200 and sop_uid not in self.failed)


class WebClient:
    """Asks one service; every request may raise ServiceFailed.

    Args:
        service: where, and with which token.
        tls: our certificate and whom we trust; None: the system's authorities.
        timeout_seconds: without a connection, or without anything new. Who sends less than a piece
            in ten times as long is not waited for either.
    """

    def __init__(self, service: WebService, tls: Tls | None, timeout_seconds: float) -> None:
        self._root = service.url.rstrip("/")
        self._token_file = service.token_file
        self._tls = tls
        self._timeout = Timeout(connect=timeout_seconds, read=timeout_seconds)
        self._patience_seconds = PROGRESS_TIMEOUTS * timeout_seconds
        self._pool: PoolManager | None = None
        self._sockets: Sockets = WeakSet()
        self._watchdog = Watchdog(self._sockets, self._patience_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close its connections."""
        if self._pool is not None:
            self._pool.clear()

    def searches(self, study_uid: str) -> bool:
        """Ask for a study; whether the service answers searches at all."""
        fields = [("StudyInstanceUID", study_uid), ("limit", "1")]
        with self._asking("GET", "/studies", {"Accept": JSON}, fields) as response:
            if response.status in NO_SUCH_SERVICE:
                return False
            self._require(response, *FOUND, *NOTHING_FOUND)
        return True

    def series(self, study_uid: str) -> Iterator[SeriesListed]:
        """List the series that a service has of a study."""
        path, wanted = f"/studies/{study_uid}/series", (MODALITY, INSTANCES_OF_SERIES)
        return self._all(path, wanted, SERIES, _series_of)

    def instances(self, study_uid: str, series_uid: str | None = None) -> Iterator[InstanceListed]:
        """List the instances that a service has of a study, or of one of its series."""
        path = f"/studies/{study_uid}"
        if series_uid is not None:
            path += f"/series/{series_uid}"

        def read(found: Attributes) -> InstanceListed:
            return _instance_of(found, series_uid)

        return self._all(f"{path}/instances", (SERIES, MODALITY), SOP_INSTANCE, read)

    def retrieve(
        self, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> Iterator[Iterator[bytes]]:
        """Retrieve a study, a series or an instance as it is stored there.

        Yields:
            For each instance its PS3.10 file in pieces, to be taken before the next one is asked
            for. Where it breaks off, taking them raises ServiceFailed: what came is not whole.

        Raises:
            ServiceFailed: it sends something else, or more than a study has.
        """
        path = f"/studies/{study_uid}"
        if series_uid is not None:
            path += f"/series/{series_uid}"
        if sop_uid is not None:
            path += f"/instances/{sop_uid}"
        with self._asking("GET", path, {"Accept": AS_STORED}) as response:
            self._require(response, *FOUND)
            kind, options = media_type(response.headers.get("Content-Type"))
            pieces = self._pieces(response)
            if kind == DICOM:
                yield pieces
                return
            if kind != RELATED:
                raise self._misunderstood(
                    f"answers a retrieval with {in_words(kind)}, where {RELATED} or {DICOM} was "
                    "expected"
                )
            with self._understanding():
                found = parts(pieces, options.get("boundary", "").encode())
                for number, (headers, content) in enumerate(found, 1):
                    part_kind, _ = media_type(headers.get("content-type"))
                    if part_kind != DICOM:
                        raise self._misunderstood(
                            f"part {number} of its answer to a retrieval is {in_words(part_kind)}, "
                            f"where {DICOM} was expected"
                        )
                    if number > MOST_LISTED:
                        raise self._misunderstood(f"sends more than {MOST_LISTED:,} objects")
                    yield self._whole(content)

    def store(self, files: Sequence[Path]) -> Stored:
        """Send instances in one request.

        Raises:
            ServiceFailed: the service took none of them, and does not say why of each.
            OSError: a file is not to be had.
        """
        body = MultipartFiles(files)
        headers = {
            "Accept": JSON,
            "Content-Type": body.content_type,
            "Content-Length": str(body.size),
        }
        with self._asking("POST", "/studies", headers, body=body) as response:
            self._require(response, *STORE_ANSWERS)
            content = b"".join(self._pieces(response, LARGEST_STORE_ANSWER_BYTES))
        with self._understanding():
            answer = json.loads(content) if content.strip() else {}
            # Some wrap the dataset in an array.
            found = answer[0] if isinstance(answer, list) else answer
            return Stored(
                response.status,
                _reasons(found, REFERENCED_SEQUENCE, WARNING_REASON),
                _reasons(found, FAILED_SEQUENCE, FAILURE_REASON),
            )

    def _all(
        self,
        path: str,
        wanted: Sequence[str],
        tag: str,
        read: Callable[[Attributes], Listed],
    ) -> Iterator[Listed]:
        """Everything that a search finds, page by page, each UID once.

        Until a page brings nothing new: services limit pages as they like, and some answer every
        offset with the first page.
        """
        seen: set[str] = set()
        for _page in range(MOST_PAGES):
            before = len(seen)
            for found in self._page(path, wanted, before):
                with self._understanding():
                    uid, listed = text_of(found, tag), read(found)
                if uid not in seen:
                    seen.add(uid)
                    yield listed
                if len(seen) > MOST_LISTED:
                    raise self._misunderstood(f"lists more than {MOST_LISTED:,} objects")
            if len(seen) == before:
                return
        raise self._misunderstood(f"lists objects in more than {MOST_PAGES:,} answers")

    def _page(self, path: str, wanted: Sequence[str], offset: int) -> Iterator[Attributes]:
        fields = [("limit", str(PAGE)), ("offset", str(offset))]
        fields += [("includefield", tag) for tag in wanted]
        with self._asking("GET", path, {"Accept": JSON}, fields) as response:
            if response.status in NOTHING_FOUND:
                return
            self._require(response, *FOUND)
            found = items_in(self._pieces(response, LARGEST_PAGE_BYTES))
            while True:
                with self._understanding():
                    item = next(found, None)
                if item is None:
                    return
                yield item

    @contextmanager
    def _asking(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        fields: Sequence[tuple[str, str]] | None = None,
        body: MultipartFiles | None = None,
    ) -> Iterator[BaseHTTPResponse]:
        """Make a request; its response is to be read within.

        Causes are cut off: they may quote what was sent.
        """
        headers = {**headers, **self._authorization()}
        connections = self._connections()
        with Watchdog(self._sockets, self._patience_seconds) as self._watchdog:
            try:
                response = connections.request(
                    method,
                    self._root + path,
                    fields=fields,
                    headers=headers,
                    redirect=False,
                    preload_content=False,
                    **({} if body is None else {"body": self._sent(body)}),
                )
            except (HTTPError, OSError) as error:
                raise self._unanswered(error) from None
            except UNINTELLIGIBLE as error:  # such as a header that Python's parser dies of
                raise self._unintelligible(error) from None
            try:
                yield response
            finally:
                response.close()

    def _sent(self, body: MultipartFiles) -> Iterator[bytes]:
        for piece in body:
            self._watchdog.calm()
            yield piece

    def _connections(self) -> PoolManager:
        """Connections, which are opened as needed."""
        if self._pool is None:
            try:
                context = service_context(self._tls)
            except BadSettings as error:
                raise ServiceFailed(self._root, str(error), None, True) from None
            self._pool = watched_pool(
                self._sockets, ssl_context=context, timeout=self._timeout, retries=False
            )
        return self._pool

    def _authorization(self) -> Mapping[str, str]:
        if self._token_file is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self._token_file.read_text('ascii').strip()}"}
        except (OSError, ValueError) as error:
            found = f"its token_file {self._token_file} cannot be read ({type(error).__name__})"
            raise ServiceFailed(self._root, found, None, True) from None

    def _require(self, response: BaseHTTPResponse, *statuses: int) -> None:
        status = response.status
        if status in statuses:
            return
        said = f"HTTP {status}"
        if status in range(300, 400):
            said += ", a redirect, which is not followed"
        is_temporary = status in TEMPORARY or (status >= 500 and status not in NEVER)
        raise ServiceFailed(self._root, said, status, is_temporary)

    def _pieces(self, response: BaseHTTPResponse, most: float = inf) -> Iterator[bytes]:
        """The body as it comes, of so many bytes at most."""
        came = calmed = 0
        try:
            # Not `stream`, which drops what came of the last piece when a connection breaks.
            while piece := response.read1(PIECE_BYTES):
                came += len(piece)
                if came > most:
                    raise self._misunderstood(f"answers with more than {most:,} bytes")
                if came - calmed >= PIECE_BYTES:
                    self._watchdog.calm()
                    calmed = came
                yield piece
        except (HTTPError, OSError) as error:
            raise self._unanswered(error) from None
        except UNINTELLIGIBLE as error:
            raise self._unintelligible(error) from None
        if self._watchdog.has_bitten:  # what looks like the end is none
            raise self._unanswered(TimeoutError())

    def _whole(self, content: Iterator[bytes]) -> Iterator[bytes]:
        with self._understanding():
            yield from content

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        """Turn whatever an answer is not into ServiceFailed."""
        try:
            yield
        except BadMultipart as error:
            raise ServiceFailed(self._root, str(error), None, True) from None
        except (BadAttribute, *UNINTELLIGIBLE) as error:
            raise self._unintelligible(error) from None

    def _unintelligible(self, error: Exception) -> ServiceFailed:
        return self._misunderstood(f"an answer that cannot be understood ({type(error).__name__})")

    def _misunderstood(self, found: str) -> ServiceFailed:
        return ServiceFailed(self._root, found, None, False)

    def _unanswered(self, error: Exception) -> ServiceFailed:
        what = error.strerror if isinstance(error, OSError) and error.strerror else ""
        found = f"no answer ({what or type(error).__name__})"
        if self._watchdog.has_bitten:
            found = f"no whole answer within {self._patience_seconds:g} s"
        return ServiceFailed(self._root, found, None, True)


def _series_of(found: Attributes) -> SeriesListed:
    uid = text_of(found, SERIES)
    require_uid("SeriesInstanceUID", uid)
    count = text_of(found, INSTANCES_OF_SERIES)
    return SeriesListed(uid, text_of(found, MODALITY), int(count) if count else None)


def _instance_of(found: Attributes, series_uid: str | None) -> InstanceListed:
    series, instance = text_of(found, SERIES) or series_uid or "", text_of(found, SOP_INSTANCE)
    require_uid("SeriesInstanceUID", series)
    require_uid("SOPInstanceUID", instance)
    return InstanceListed(series, instance, text_of(found, SOP_CLASS), text_of(found, MODALITY))


def _reasons(found: Attributes, sequence: str, reason: str) -> dict[str, int]:
    return {
        text_of(item, REFERENCED_INSTANCE): int(text_of(item, reason) or 0)
        for item in items_of(found, sequence)
    }
