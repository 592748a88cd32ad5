"""The pages: what the queries of the other modules found, put into templates."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse

from listener.console import asked, promotion, rollouts
from listener.console.api import JobID, StudyUID, search
from listener.console.choice import choices, decided, rules_of
from listener.console.desk import Desk, require_operator
from listener.console.document import read_documents
from listener.console.job import JobView
from listener.console.kept import read_results
from listener.console.show import SEE_OTHER, Show
from listener.console.slices import NoPicture, Slices, around, read_slices
from listener.console.study import StudyView
from listener.console.tester import EXAMPLE, BadHeaders, read_pasted
from listener.console.trail import read_trail
from listener.console.wellbeing import read_wellbeing
from listener.console.work import read_queue
from listener.console.worklist import (
    BANDS,
    JOB_STATES,
    STUDY_STATES,
    Turn,
    Wanted,
    refusals,
    scanners,
    worklist,
)
from listener.in_force import in_force
from listener.segmentation import REGIONS
from listener.selection import ANALYSES

STATES: Final[Mapping[str, str]] = {
    name: told[0] for table in (STUDY_STATES, JOB_STATES) for name, told in table.items()
}

Count = Annotated[int | None, Query(ge=0)]
"""How many of what was tried again; None: nobody has tried."""

OPACITY_PERCENT: Final = 80
NEAR: Final = 4
"""Slices on either side that are linked to."""


def router(desk: Desk, show: Show) -> APIRouter:
    """The routes of all pages."""
    pages = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    add_worklist(pages, desk, show)
    add_study(pages, desk, show)
    add_viewer(pages, desk, show)
    add_for_operators(pages, desk, show)
    add_actions(pages, desk)
    add_house(pages, desk, show)
    add_rules(pages, desk, show)
    rollouts.add_pages(pages, desk, show)
    promotion.add_pages(pages, desk, show)
    return pages


def add_worklist(pages: APIRouter, desk: Desk, show: Show) -> None:
    """The worklist, and what searching for a patient leads to."""

    def listed(request: Request, wanted: Wanted, turn: Turn) -> dict[str, Any]:
        desk.listed(request)
        page = worklist(desk.ledger, wanted, turn)
        query = asked.as_query(wanted)
        here = {"before": turn.before or "", "after": turn.after or ""}
        return {
            "page": page,
            "patients": desk.patients.of(each.study_uid for each in page.studies),
            "reach": desk.patients.reach,
            "wanted": wanted,
            "fragment": "/fragment/worklist?"
            + urlencode({**query, **{name: str(at) for name, at in here.items() if at}}),
            "newer": "/?" + urlencode({**query, "after": page.newer}) if page.newer else None,
            "older": "/?" + urlencode({**query, "before": page.older}) if page.older else None,
        }

    @pages.get("/")
    def first(
        request: Request,
        wanted: Annotated[Wanted, Depends(asked.wanted)],
        turn: Annotated[Turn, Depends(asked.turn)],
    ) -> Response:
        return show(
            request,
            "worklist.html",
            **listed(request, wanted, turn),
            states=STATES,
            analyses=ANALYSES,
            bands=BANDS,
            scanners=scanners(desk.ledger),
            refusals=refusals(desk.ledger),
        )

    @pages.get("/fragment/worklist")
    def rows(
        request: Request,
        wanted: Annotated[Wanted, Depends(asked.wanted)],
        turn: Annotated[Turn, Depends(asked.turn)],
    ) -> Response:
        return show(request, "worklist_rows.html", **listed(request, wanted, turn))

    @pages.post("/search")
    def find(
        request: Request,
        text: Annotated[str, Form(max_length=asked.SEARCH_CHARACTERS)] = "",
    ) -> Response:
        text = text.strip()
        desk.searched(request, text)
        hits = search(desk, text)
        return show(
            request, "search.html", text=text, hits=hits, page=hits.page, patients=hits.patients
        )


def add_study(pages: APIRouter, desk: Desk, show: Show) -> None:
    """One study."""

    def look_at(study_uid: str, job: JobView) -> Slices | None:
        try:
            return read_slices(desk.ledger, desk.spool, study_uid, job.job_id)
        except NoPicture:
            return None

    def told(study: StudyView) -> dict[str, Any]:
        headers = desk.read_headers(study)
        uid = study.study_uid
        return {
            "study": study,
            "patient": desk.patients.of([uid])[uid],
            "decided": decided(study),
            "choices": desk.choices(headers),
            "missing": headers.missing,
            "headers": headers.shown,
            "unreadable": headers.unreadable,
            "asked_for": desk.settings.analyses,
            "slices": {each.job_id: look_at(uid, each) for each in study.jobs if each.has_slices},
            "documents": {
                each.job_id: read_documents(desk.ledger, uid, each.job_id)
                for each in study.answers
                if each.results
            },
        }

    @pages.get("/studies/{study_uid}")
    def study(
        request: Request,
        study_uid: StudyUID,
        jobs: Count = None,
        parked: Count = None,
        hurried: Count = None,
    ) -> Response:
        found = desk.study(study_uid)
        desk.viewed(request, study_uid)
        counts = jobs, parked, hurried
        retried = None if None in counts else counts
        return show(request, "study.html", **told(found), retried=retried)

    @pages.get("/studies/{study_uid}/jobs/{job_id}")
    def one_job(request: Request, study_uid: StudyUID, job_id: JobID) -> Response:
        study, job = desk.job(study_uid, job_id)
        desk.viewed(request, study_uid)
        found = {job_id: look_at(study_uid, job)} if job.has_slices else {}
        read = {job_id: read_documents(desk.ledger, study_uid, job_id)}
        patient = desk.patients.of([study_uid])[study_uid]
        return show(
            request,
            "job.html",
            study=study,
            job=job,
            patient=patient,
            slices=found,
            documents=read,
        )

    @pages.get("/fragment/studies/{study_uid}", dependencies=[Depends(desk.looked_at)])
    def study_now(request: Request, study_uid: StudyUID) -> Response:
        return show(request, "study_body.html", **told(desk.study(study_uid)))


def add_viewer(pages: APIRouter, desk: Desk, show: Show) -> None:
    """The overlay, slice by slice."""

    @pages.get("/studies/{study_uid}/jobs/{job_id}/slices")
    def viewer(
        request: Request,
        study_uid: StudyUID,
        job_id: JobID,
        number: Annotated[int, Query(alias="slice", ge=1)] = 0,
        opacity: Annotated[int, Query(ge=0, le=100)] = OPACITY_PERCENT,
    ) -> Response:
        study, job = desk.job(study_uid, job_id)
        try:
            slices = read_slices(desk.ledger, desk.spool, study_uid, job_id)
        except NoPicture as error:
            raise HTTPException(404, str(error)) from None
        if slices is None:
            raise HTTPException(404, "this job made no overlay")
        desk.viewed(request, study_uid)
        number = min(number or slices.most_marked, slices.count)
        return show(
            request,
            "viewer.html",
            study=study,
            patient=desk.patients.of([study_uid])[study_uid],
            job=job,
            slices=slices,
            number=number,
            opacity=opacity,
            near=around(slices.count, number, NEAR),
        )


def add_for_operators(pages: APIRouter, desk: Desk, show: Show) -> None:
    """What viewers do not see: files, and who saw a study."""
    looked_at = [Depends(desk.looked_at)]

    @pages.get("/studies/{study_uid}/jobs/{job_id}/results", dependencies=looked_at)
    def results(request: Request, study_uid: StudyUID, job_id: JobID) -> Response:
        require_operator(request)
        study, job = desk.job(study_uid, job_id)
        kept = read_results(desk.ledger, study_uid, job_id)
        return show(request, "results.html", study=study, job=job, results=kept)

    @pages.get("/studies/{study_uid}/audit", dependencies=looked_at)
    def audit(request: Request, study_uid: StudyUID) -> Response:
        require_operator(request)
        study = desk.study(study_uid)
        trail = read_trail(desk.settings, study_uid)
        return show(request, "trail.html", study=study, trail=trail)


def add_actions(pages: APIRouter, desk: Desk) -> None:
    """What operators do; the gate has seen to it that they are."""

    @pages.post("/studies/{study_uid}/retry")
    def retry(
        request: Request,
        study_uid: StudyUID,
        destination: Annotated[str, Form(max_length=32)] = "",
    ) -> Response:
        done = desk.retry(request, study_uid, destination or None)
        query = urlencode({"jobs": done.jobs, "parked": done.parked, "hurried": done.hurried})
        return RedirectResponse(f"/studies/{study_uid}?{query}#retried", SEE_OTHER)

    @pages.post("/studies/{study_uid}/cancel")
    def cancel(request: Request, study_uid: StudyUID) -> Response:
        desk.cancel(request, study_uid)
        return RedirectResponse(f"/studies/{study_uid}", SEE_OTHER)


def add_house(pages: APIRouter, desk: Desk, show: Show) -> None:
    """The listener itself: queue, workers, bundles, settings."""

    @pages.get("/queue")
    def queue(request: Request) -> Response:
        return show(request, "queue.html", queue=read_queue(desk.ledger))

    @pages.get("/fragment/queue")
    def queue_now(request: Request) -> Response:
        return show(request, "queue_body.html", queue=read_queue(desk.ledger))

    @pages.get("/health")
    def health(request: Request) -> Response:
        found = read_wellbeing(desk.settings, desk.look)
        return show(request, "health.html", found=found)

    @pages.get("/fragment/health")
    def health_now(request: Request) -> Response:
        found = read_wellbeing(desk.settings, desk.look)
        return show(request, "health_body.html", found=found)

    @pages.get("/settings")
    def settings(request: Request) -> Response:
        return show(request, "settings.html", settings=in_force(desk.settings))

    @pages.get("/api")
    def api(request: Request) -> Response:
        return show(request, "api.html", paths=request.app.openapi()["paths"])


def add_rules(pages: APIRouter, desk: Desk, show: Show) -> None:
    """The rules of selection, to be read and to be tried."""

    def page(request: Request, **values: Any) -> Response:
        tables = {analysis: rules_of(analysis) for analysis in ANALYSES}
        usual: dict[str, Any] = {
            "text": "", "study_uid": "", "mistake": "", "choices": (), "missing": "",
            "headers": {}, "unreadable": {},
        }  # fmt: skip
        return show(
            request,
            "rules.html",
            status=422 if values.get("mistake") else 200,
            tables=tables,
            regions=REGIONS,
            example=EXAMPLE,
            asked_for=desk.settings.analyses,
            **(usual | values),
        )

    @pages.get("/rules")
    def rules(request: Request, study: Annotated[str, Query(max_length=64)] = "") -> Response:
        study = study.strip()
        if not study:
            return page(request)
        try:
            headers = desk.read_headers(desk.study(study))
        except HTTPException as error:
            return page(request, study_uid=study, mistake=error.detail)
        desk.glanced_at(request, study)
        return page(
            request,
            study_uid=study,
            choices=desk.choices(headers),
            missing=headers.missing,
            headers=headers.shown,
            unreadable=headers.unreadable,
        )

    @pages.post("/rules")
    def try_rules(
        request: Request, text: Annotated[str, Form(max_length=500_000)] = ""
    ) -> Response:
        try:
            facts = read_pasted(text)
        except BadHeaders as error:
            return page(request, text=text, mistake=str(error))
        return page(request, text=text, choices=choices(ANALYSES, facts))
