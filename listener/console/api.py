"""The same as the pages, as JSON; /api/openapi.json describes it. Times are in seconds.

Whoever has not signed in gets 401, from the gate; programs show a token of an account of theirs.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response, Security
from fastapi.exceptions import HTTPException
from pydantic import BaseModel, Field
from starlette.responses import FileResponse

from listener.console import asked, rollouts
from listener.console.bundle_list import Bundle, read_bundles
from listener.console.choice import Choice, Decided, SeriesHeader, choices, decided, rules_of
from listener.console.contract import BODY_PROBLEMS, SCHEMES
from listener.console.desk import Desk, require_operator
from listener.console.document import Document, read_documents
from listener.console.identity import Identity
from listener.console.job import JobView
from listener.console.kept import KeptResult, file_of, read_results
from listener.console.patients import Reach
from listener.console.slices import NoPicture, Slices, read_layer, read_pack, read_slices
from listener.console.study import Event, StudyView
from listener.console.tester import BadHeaders, read_pasted
from listener.console.trail import Trail, read_trail
from listener.console.wellbeing import Wellbeing, read_wellbeing
from listener.console.work import Queue, read_queue
from listener.console.worklist import (
    BANDS,
    JOB_STATES,
    STUDY_STATES,
    Page,
    Turn,
    Wanted,
    beginning_so,
    refusals,
    scanners,
    these_studies,
    worklist,
)
from listener.in_force import InForce, in_force
from listener.selection import ANALYSES

StudyUID = Annotated[str, Path(max_length=64, description="Study Instance UID")]
JobID = Annotated[str, Path(pattern="^[0-9a-f-]{36}$")]

MOST_FOUND = 200
"""Studies that a search lists."""


class Search(BaseModel):
    """What to search for: words of a patient's name or ID, an accession number, or how a Study
    Instance UID begins, with a dot in it.
    """

    text: Annotated[str, Field(min_length=1, max_length=asked.SEARCH_CHARACTERS)]


class Pasted(BaseModel):
    """Header values of some series, or a study that was received."""

    text: Annotated[str, Field(max_length=500_000)] = ""
    study_uid: Annotated[str, Field(max_length=64)] = ""


@dataclass(frozen=True)
class Named:
    """A page of the worklist, and whose the studies are, by Study Instance UID."""

    page: Page
    patients: dict[str, Identity]


@dataclass(frozen=True)
class Hits:
    """What a search found.

    Attributes:
        is_all: whether there are no more.
        reach: the studies that were looked at by name.
    """

    page: Page
    patients: dict[str, Identity]
    is_all: bool
    reach: Reach


@dataclass(frozen=True)
class ChoiceView:
    """Which series each analysis was given, and which it would take now, and why.

    Attributes:
        decided: as the study was planned; empty for headers that were pasted.
        missing: why it cannot be said what would be taken now; empty where it can.
        choices: as the rules that are in force now see the headers.
        headers: what they say.
        unreadable: series UID to the reason.
    """

    decided: tuple[Decided, ...]
    missing: str
    choices: tuple[Choice, ...]
    headers: dict[str, SeriesHeader]
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Rule:
    """One rule of selection; `points` are given where a rule that prefers holds."""

    rule: str
    kind: str
    points: str
    sentence: str


@dataclass(frozen=True)
class Filters:
    """What the worklist can be filtered by, as far as there are such studies."""

    states: tuple[str, ...]
    analyses: tuple[str, ...]
    bands: tuple[str, ...]
    refusals: tuple[str, ...]
    scanners: tuple[str, ...]


@dataclass(frozen=True)
class Retried:
    """What is tried again.

    Attributes:
        jobs: that failed or were cancelled, and are queued again.
        parked: result objects that nobody would have sent, and that are sent again.
        hurried: result objects that waited for their next attempt, and wait no more.
    """

    jobs: int
    parked: int
    hurried: int


@dataclass(frozen=True)
class Cancelled:
    """What was stopped."""

    jobs: int


def search(desk: Desk, text: str) -> Hits:
    """Studies by what `Search` says. All of it stays here: a patient's ID may look like a UID."""
    named = desk.patients.search(text, MOST_FOUND)
    begun = beginning_so(desk.ledger, text.strip(), MOST_FOUND + 1)
    study_uids = list(dict.fromkeys([*named.study_uids, *begun]))
    page = these_studies(desk.ledger, study_uids[:MOST_FOUND])
    patients = desk.patients.of(each.study_uid for each in page.studies)
    is_all = named.is_all and len(study_uids) <= MOST_FOUND
    return Hits(page, patients, is_all, desk.patients.reach)


def choices_of(desk: Desk, request: Request, study_uid: str) -> ChoiceView:
    """Which series were taken of a study, and would be now."""
    study = desk.study(study_uid)
    desk.glanced_at(request, study_uid)
    headers = desk.read_headers(study)
    return ChoiceView(
        decided(study),
        headers.missing,
        desk.choices(headers),
        dict(headers.shown),
        dict(headers.unreadable),
    )


def router(desk: Desk) -> APIRouter:
    """The routes below /api."""
    shown = [Security(scheme) for scheme in SCHEMES]
    api = APIRouter(prefix="/api", dependencies=[*shown, Depends(desk.looked_at)])
    add_studies(api, desk)
    add_jobs(api, desk)
    add_house(api, desk)
    rollouts.add_api(api, desk)
    return api


def add_studies(api: APIRouter, desk: Desk) -> None:
    """Routes about studies."""

    @api.get("/studies", summary="The worklist, page by page", tags=["studies"])
    def studies(
        request: Request,
        wanted: Annotated[Wanted, Depends(asked.wanted)],
        turn: Annotated[Turn, Depends(asked.turn)],
    ) -> Named:
        desk.listed(request)
        page = worklist(desk.ledger, wanted, turn)
        return Named(page, desk.patients.of(each.study_uid for each in page.studies))

    @api.get("/filters", summary="What the worklist can be filtered by", tags=["studies"])
    def filters() -> Filters:
        return Filters(
            states=(*STUDY_STATES, *JOB_STATES),
            analyses=tuple(ANALYSES),
            bands=tuple(BANDS),
            refusals=refusals(desk.ledger),
            scanners=scanners(desk.ledger),
        )

    @api.post(
        "/search",
        summary="Studies by name, ID, accession number or UID",
        tags=["studies"],
        responses=BODY_PROBLEMS,
    )
    def find(body: Search, request: Request) -> Hits:
        desk.searched(request, body.text)
        return search(desk, body.text)

    @api.get("/studies/{study_uid}", summary="One study", tags=["studies"])
    def study(study_uid: StudyUID) -> StudyView:
        return desk.study(study_uid)

    @api.get("/studies/{study_uid}/patient", summary="Whose it is", tags=["studies"])
    def patient(study_uid: StudyUID) -> Identity:
        desk.study(study_uid)
        return desk.patients.of([study_uid])[study_uid]

    @api.get("/studies/{study_uid}/choices", summary="Which series, and why", tags=["studies"])
    def study_choices(study_uid: StudyUID, request: Request) -> ChoiceView:
        return choices_of(desk, request, study_uid)

    @api.get("/studies/{study_uid}/events", summary="What happened to it", tags=["studies"])
    def study_events(study_uid: StudyUID) -> tuple[Event, ...]:
        return desk.study(study_uid).events

    @api.get("/studies/{study_uid}/audit", summary="Who saw it, for operators", tags=["studies"])
    def audit(study_uid: StudyUID, request: Request) -> Trail:
        require_operator(request)
        return read_trail(desk.settings, desk.study(study_uid).study_uid)

    @api.post(
        "/studies/{study_uid}/retry",
        summary="Run and send again",
        tags=["studies"],
        responses=BODY_PROBLEMS,
    )
    def retry(study_uid: StudyUID, request: Request, destination: asked.Text = "") -> Retried:
        return Retried(*desk.retry(request, study_uid, destination or None))

    @api.post(
        "/studies/{study_uid}/cancel",
        summary="Stop its jobs",
        tags=["studies"],
        responses=BODY_PROBLEMS,
    )
    def cancel(study_uid: StudyUID, request: Request) -> Cancelled:
        return Cancelled(desk.cancel(request, study_uid))


def add_jobs(api: APIRouter, desk: Desk) -> None:
    """Routes about what a job made."""
    job = "/studies/{study_uid}/jobs/{job_id}"

    @api.get(job, summary="One job: an answer, an earlier one or a shadow's", tags=["jobs"])
    def one_job(study_uid: StudyUID, job_id: JobID) -> JobView:
        return desk.job(study_uid, job_id)[1]

    @api.get(f"{job}/documents", summary="Its reports as text", tags=["jobs"])
    def documents(study_uid: StudyUID, job_id: JobID) -> tuple[Document, ...]:
        return read_documents(desk.ledger, study_uid, job_id)

    @api.get(f"{job}/slices", summary="What there is to look at", tags=["jobs"])
    def slices(study_uid: StudyUID, job_id: JobID) -> Slices:
        found = read_slices(desk.ledger, desk.spool, study_uid, job_id)
        if found is None:
            raise HTTPException(404, "the job has no overlay")
        return found

    @api.get(f"{job}/results", summary="Its result objects, for operators", tags=["jobs"])
    def results(study_uid: StudyUID, job_id: JobID, request: Request) -> tuple[KeptResult, ...]:
        require_operator(request)
        return read_results(desk.ledger, study_uid, job_id)

    @api.get(
        f"{job}/results/{{sop_uid}}.dcm",
        summary="One result object as a DICOM file, for operators",
        tags=["jobs"],
        response_class=FileResponse,
        responses={200: {"content": {"application/dicom": {}}}},
    )
    def result_file(
        study_uid: StudyUID,
        job_id: JobID,
        sop_uid: Annotated[str, Path(max_length=64)],
        request: Request,
    ) -> FileResponse:
        require_operator(request)
        path = file_of(desk.ledger, desk.spool, study_uid, job_id, sop_uid)
        if path is None:
            raise HTTPException(404, "there is no such result object")
        desk.viewed(request, study_uid)
        return FileResponse(path, media_type="application/dicom", filename=f"{sop_uid}.dcm")

    @api.get(
        f"{job}/slices/pack",
        summary="Both layers of some slices: before each PNG its size, 4 bytes, big-endian",
        tags=["jobs"],
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}}},
    )
    def pack(
        study_uid: StudyUID,
        job_id: JobID,
        first: Annotated[int, Query(ge=1, le=100_000)],
        count: Annotated[int, Query(ge=1, le=16)],
    ) -> Response:
        try:
            content = read_pack(desk.ledger, desk.spool, study_uid, job_id, first, count)
        except NoPicture as error:
            raise HTTPException(404, str(error)) from None
        return Response(content, media_type="application/octet-stream")

    @api.get(
        f"{job}/slices/{{number}}/{{layer}}.png",
        summary="One layer of one slice, numbered from 1",
        tags=["jobs"],
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    def layer(
        study_uid: StudyUID,
        job_id: JobID,
        number: Annotated[int, Path(ge=1, le=100_000)],
        layer: Literal["anatomy", "heat"],
    ) -> Response:
        try:
            content = read_layer(desk.ledger, desk.spool, study_uid, job_id, number, layer)
        except NoPicture as error:
            raise HTTPException(404, str(error)) from None
        return Response(content, media_type="image/png")


def add_house(api: APIRouter, desk: Desk) -> None:
    """Routes about the listener itself."""

    @api.get("/queue", summary="What waits and runs, and the workers", tags=["house"])
    def queue() -> Queue:
        return read_queue(desk.ledger)

    @api.get("/bundles", summary="Bundles of all roles", tags=["house"])
    def bundles() -> tuple[Bundle, ...]:
        return read_bundles(desk.ledger)

    @api.get("/health", summary="How the listener is", tags=["house"])
    def health() -> Wellbeing:
        return read_wellbeing(desk.settings, desk.look)

    @api.get("/settings", summary="Settings in force, without passwords", tags=["house"])
    def settings() -> list[InForce]:
        return in_force(desk.settings)

    @api.get("/rules", summary="All rules of selection, by analysis", tags=["house"])
    def all_rules() -> dict[str, tuple[Rule, ...]]:
        return {each: tuple(Rule(*row) for row in rules_of(each)) for each in ANALYSES}

    @api.post(
        "/rules", summary="Try the rules of selection", tags=["house"], responses=BODY_PROBLEMS
    )
    def rules(body: Pasted, request: Request) -> ChoiceView:
        if body.study_uid:
            return choices_of(desk, request, body.study_uid)
        try:
            facts = read_pasted(body.text)
        except BadHeaders as error:
            raise HTTPException(422, str(error)) from None
        return ChoiceView((), "", choices(ANALYSES, facts), {}, {})
