"""Which bundle answers, and how a shadow does beside it: pages and JSON for those who decide."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Path, Query, Request, Response, UploadFile
from fastapi.exceptions import HTTPException
from pydantic import BaseModel, Field

from listener.audit.codes import SOFTWARE_CONFIGURATION
from listener.comparison import Comparison, compare
from listener.console.bundle_list import Bundle, read_bundles, read_evaluation
from listener.console.contract import BODY_PROBLEMS, CONFLICT
from listener.console.desk import Desk, account_of, visitor
from listener.console.gate.headers import OF_REPORTS
from listener.console.show import Show
from listener.entries import BundleRow, Edition
from listener.labels import BadLabels, Kept, keep_labels, read_labels
from listener.rollout import (
    CannotRollOut,
    NobodyHolds,
    Step,
    can_roll_back,
    history,
    promote,
    require_a_worker,
    roll_back,
    set_aside,
)
from listener.selection import ANALYSES

MOST_TABLE_BYTES = 5 << 20
MOST_SHOWN = 100
"""Rows of a table on the page."""

FEW_COMPARED = 2_000
MOST_COMPARED = 100_000
"""Pairs that figures are computed of, the latest: a page waits for these, a program may ask for
more."""

NAMES_SECONDS = 0.05
"""How long the page waits for names that were not read yet: figures take as long already."""

MOST_DRAWN = 500
MOST_LISTED = 10_000
"""Pairs that are drawn, and that a program gets."""

MOST_REASON = 200
"""Characters that say why."""

NO_REPORT = "this bundle has no evaluation report"

Role = Literal["active", "shadow", "retired"]
Analysis = Annotated[str, Path(max_length=32)]
Weights = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
Version = Annotated[str, Path(max_length=64)]
Reason = Annotated[str, Query(max_length=MOST_REASON, description="why, for the audit trail")]


@dataclass(frozen=True)
class Decided:
    """The role that a bundle has now."""

    analysis: str
    version: str
    weights_sha256: str
    role: str


class Table(BaseModel):
    """Labels of an analysis: CSV with the columns study_uid and label."""

    analysis: str
    text: Annotated[str, Field(max_length=MOST_TABLE_BYTES)]


def decide(
    desk: Desk,
    request: Request,
    analysis: str,
    edition: Edition,
    role: Role,
    *,
    reason: str = "",
    without_a_worker: bool = False,
) -> Decided:
    """Give a bundle a role.

    Args:
        desk: of the console.
        request: of whoever decides.
        analysis: of the bundle.
        edition: of the bundle.
        role: that it gets.
        reason: why, for the audit trail.
        without_a_worker: whether it is promoted also where no living worker holds it.

    Raises:
        NobodyHolds: so it is, and nobody said that it is to be promoted all the same.
        HTTPException: 409, it cannot be so, and why.
    """
    with _audited(desk, request, f"{analysis} {edition[1]}: {role}", reason) as actor:
        if role != "active":
            return _decided(set_aside(desk.ledger, analysis, edition, role, actor))
        if not without_a_worker:
            require_a_worker(desk.ledger, analysis, edition)
        return _decided(promote(desk.ledger, analysis, edition, actor))


def take_back(
    desk: Desk, request: Request, analysis: str, number: int | None, reason: str
) -> Decided:
    """Take the last promotion back.

    Args:
        desk: of the console.
        request: of whoever decides.
        analysis: of the bundle.
        number: of the promotion that is meant; None: whichever is the last.
        reason: why, for the audit trail.

    Raises:
        HTTPException: 409, it cannot be so, and why.
    """
    with _audited(desk, request, f"{analysis}: roll back", reason) as actor:
        return _decided(roll_back(desk.ledger, analysis, actor, number))


@contextmanager
def _audited(desk: Desk, request: Request, what: str, reason: str) -> Iterator[str]:
    """Write a decision down, with why, and whether it failed; gives who decides."""
    what += f"; reason: {' '.join(reason.split())}" if reason.strip() else ""
    told: dict[str, Any] = {"kind": SOFTWARE_CONFIGURATION, "by": visitor(request)}
    try:
        yield account_of(request).name
    except BaseException as error:
        desk.audit.acted(what, failed=True, **told)
        if isinstance(error, CannotRollOut) and not isinstance(error, NobodyHolds):
            raise HTTPException(409, str(error)) from None
        raise
    desk.audit.acted(what, **told)


def _decided(bundle: BundleRow) -> Decided:
    return Decided(bundle.analysis, bundle.version, bundle.weights_sha256, bundle.role)


def take_labels(desk: Desk, request: Request, analysis: str, text: str) -> Kept:
    """Keep what turned out to be true; raises HTTPException 422 where it cannot be read."""
    what, by = f"labels for {analysis if analysis in ANALYSES else 'no analysis'}", visitor(request)
    try:
        kept = keep_labels(desk.ledger, analysis, read_labels(text), account_of(request).name)
    except BaseException as error:
        desk.audit.acted(what, failed=True, by=by)
        if isinstance(error, BadLabels):
            raise HTTPException(422, str(error)) from None
        raise
    desk.audit.acted(what, by=by)
    return kept


def compared(
    desk: Desk, request: Request, analysis: str, shadow: Edition, latest: int, shown: int
) -> tuple[Bundle, Bundle, Comparison]:
    """The active bundle, another one, and what both said of whom; raises HTTPException 404."""
    of_analysis = [each for each in read_bundles(desk.ledger) if each.analysis == analysis]
    active = next((each for each in of_analysis if each.role == "active"), None)
    other = next((each for each in of_analysis if each.edition == shadow), None)
    if active is None or other is None or active is other:
        raise HTTPException(404, "there are no two bundles to compare: a shadow and an active one")
    desk.listed(request)
    editions = active.edition, other.edition
    return active, other, compare(desk.ledger, analysis, *editions, latest, shown)


def add_api(api: APIRouter, desk: Desk) -> None:
    """The same as JSON."""
    tags: list[Any] = ["house"]

    @api.get(
        "/bundles/{analysis}/{weights}/{version}/evaluation",
        summary="The report of its evaluation: HTML that needs nothing else",
        tags=tags,
        response_class=Response,
        responses={200: {"content": {"text/html": {}}}},
    )
    def evaluation(analysis: Analysis, weights: Weights, version: Version) -> Response:
        return _report(desk, analysis, (weights, version))

    @api.get("/rollouts", summary="Who gave which bundle which role", tags=tags)
    def rollouts(
        limit: Annotated[int, Query(ge=1, le=10_000, description="steps listed")] = MOST_SHOWN,
    ) -> list[Step]:
        return history(desk.ledger, limit)

    @api.post(
        "/bundles/{analysis}/roll-back",
        summary="Take a promotion back",
        tags=tags,
        responses=BODY_PROBLEMS | CONFLICT,
    )
    def back(
        analysis: Analysis,
        request: Request,
        reason: Reason = "",
        number: Annotated[
            int | None, Query(description="of the promotion that is meant; left out: the last")
        ] = None,
    ) -> Decided:
        return take_back(desk, request, analysis, number, reason)

    @api.post(
        "/bundles/{analysis}/{weights}/{version}/role",
        summary="Give a bundle a role",
        tags=tags,
        responses=BODY_PROBLEMS | CONFLICT,
    )
    def give_role(
        analysis: Analysis,
        weights: Weights,
        version: Version,
        role: Role,
        request: Request,
        reason: Reason = "",
        without_a_worker: Annotated[
            bool, Query(description="promote it also where no living worker holds it")
        ] = False,
    ) -> Decided:
        edition, also = (weights, version), without_a_worker
        try:
            return decide(
                desk, request, analysis, edition, role, reason=reason, without_a_worker=also
            )
        except NobodyHolds as error:
            said = f"{error}; or ask again with without_a_worker=true"
            raise HTTPException(409, said) from None

    @api.get(
        "/bundles/{analysis}/{weights}/{version}/comparison",
        summary="A shadow beside the active bundle",
        tags=tags,
    )
    def comparison(
        analysis: Analysis,
        weights: Weights,
        version: Version,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="pairs listed")] = 1_000,
        latest: Annotated[
            int, Query(ge=1, le=MOST_COMPARED, description="pairs that the figures are of")
        ] = FEW_COMPARED,
    ) -> Comparison:
        return compared(desk, request, analysis, (weights, version), latest, limit)[2]

    @api.post(
        "/labels",
        summary="What turned out to be true of studies",
        tags=tags,
        responses=BODY_PROBLEMS,
    )
    def labels(table: Table, request: Request) -> Kept:
        return take_labels(desk, request, table.analysis, table.text)


def add_pages(pages: APIRouter, desk: Desk, show: Show) -> None:
    """Bundles, their roles, and shadows beside active ones."""

    @pages.get("/bundles")
    def bundles(request: Request) -> Response:
        steps = history(desk.ledger, MOST_SHOWN + 1)
        return show(
            request,
            "bundles.html",
            bundles=read_bundles(desk.ledger),
            rollouts=steps[:MOST_SHOWN],
            is_cut=len(steps) > MOST_SHOWN,
            can_roll_back=can_roll_back(desk.ledger),
            analyses=ANALYSES,
        )

    @pages.get("/bundles/{analysis}/{weights}/{version}/evaluation")
    def evaluation(
        analysis: Analysis, weights: Weights, version: Version, request: Request
    ) -> Response:
        bundle = bundle_of(desk, analysis, (weights, version))
        if not bundle.has_evaluation:
            raise HTTPException(404, NO_REPORT)
        return show(request, "evaluation.html", bundle=bundle)

    @pages.get("/bundles/{analysis}/{weights}/{version}/evaluation.html")
    def report(analysis: Analysis, weights: Weights, version: Version) -> Response:
        return _report(desk, analysis, (weights, version))

    @pages.get("/bundles/{analysis}/{weights}/{version}/comparison")
    def comparison(
        analysis: Analysis, weights: Weights, version: Version, request: Request
    ) -> Response:
        active, other, found = compared(
            desk, request, analysis, (weights, version), FEW_COMPARED, MOST_DRAWN
        )
        scored = [each for each in found.pairs if each.difference is not None]
        apart = found.disagreements[:MOST_SHOWN]
        named = desk.patients.of((each.study_uid for each in apart), NAMES_SECONDS)
        return show(
            request,
            "comparison.html",
            active=active,
            other=other,
            found=found,
            more_compared=MOST_COMPARED,
            scored=scored,
            latest=scored[:MOST_SHOWN],
            shown=apart,
            patients=named,
        )

    @pages.post("/labels")
    def labels(
        request: Request,
        analysis: Annotated[str, Form(max_length=32)],
        table: Annotated[UploadFile, File()],
    ) -> Response:
        kept = take_labels(desk, request, analysis, _text_of(table))
        unknown = f" {kept.unknown} of them are of studies that were never received."
        message = f"{kept.labels} labels for {analysis} were kept."
        return show(
            request,
            "problem.html",
            title="Labels kept",
            message=message + (unknown if kept.unknown else ""),
        )


def bundle_of(desk: Desk, analysis: str, edition: Edition) -> Bundle:
    """One bundle; raises HTTPException 404."""
    for each in read_bundles(desk.ledger):
        if (each.analysis, each.edition) == (analysis, edition):
            return each
    raise HTTPException(404, "no worker registered such a bundle")


def _report(desk: Desk, analysis: str, edition: Edition) -> Response:
    """The report itself, which may be looked at and no more; raises HTTPException 404."""
    found = read_evaluation(desk.ledger, analysis, *edition)
    if found is None:
        raise HTTPException(404, NO_REPORT)
    return Response(found, media_type="text/html", headers=OF_REPORTS)


def _text_of(table: UploadFile) -> str:
    content = table.file.read(MOST_TABLE_BYTES + 1)
    if len(content) > MOST_TABLE_BYTES:
        raise HTTPException(413, f"a table may have {MOST_TABLE_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise HTTPException(422, "the table is no text in UTF-8") from None
