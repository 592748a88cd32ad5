"""What is asked for, as query strings and forms write it."""

from datetime import date
from typing import Annotated, Any

from fastapi import Query
from starlette.exceptions import HTTPException

from listener.console.latest import Place
from listener.console.worklist import JOB_STATES, PAGE_STUDIES, STUDY_STATES, Turn, Wanted
from listener.series import UID, UID_LENGTH

SEARCH_CHARACTERS = 200
"""The longest text to search for."""

State = Annotated[
    str, Query(description=f"one of {', '.join((*STUDY_STATES, *JOB_STATES))}; empty: any")
]
Text = Annotated[str, Query(max_length=128)]
Day = Annotated[str, Query(max_length=10, description="YYYY-MM-DD, in the server's time")]
UidPrefix = Annotated[str, Query(max_length=UID_LENGTH, description="how the UID begins")]
At = Annotated[str, Query(max_length=128, description="`older` or `newer` of another page")]


def wanted(
    state: State = "",
    analysis: Text = "",
    band: Text = "",
    refusal: Text = "",
    scanner: Text = "",
    since: Day = "",
    until: Day = "",
    uid: UidPrefix = "",
    trouble: bool = False,
) -> Wanted:
    """Which studies to list."""
    if state and state not in {*STUDY_STATES, *JOB_STATES}:
        raise HTTPException(422, "state is none that studies are listed by")
    if uid and not UID.fullmatch(uid.strip().rstrip(".")):
        raise HTTPException(422, "uid is not how a UID begins: digits and dots")
    return Wanted(
        state=state,
        analysis=analysis,
        band=band,
        refusal=refusal,
        scanner=scanner,
        since=_day("since", since),
        until=_day("until", until),
        uid=uid.strip(),
        trouble=trouble,
    )


def turn(
    before: At = "",
    after: At = "",
    limit: Annotated[int, Query(ge=1, le=200)] = PAGE_STUDIES,
) -> Turn:
    """Which page of them."""
    try:
        return Turn(
            Place.parse(before) if before else None, Place.parse(after) if after else None, limit
        )
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


def as_query(wanted_: Wanted) -> dict[str, Any]:
    """The same as a query string has it; what is empty is left out."""
    values = {
        "state": wanted_.state,
        "analysis": wanted_.analysis,
        "band": wanted_.band,
        "refusal": wanted_.refusal,
        "scanner": wanted_.scanner,
        "since": wanted_.since.isoformat() if wanted_.since else "",
        "until": wanted_.until.isoformat() if wanted_.until else "",
        "uid": wanted_.uid,
        "trouble": "true" if wanted_.trouble else "",
    }
    return {name: value for name, value in values.items() if value}


def _day(name: str, text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise HTTPException(422, f"{name} is no day: YYYY-MM-DD was expected") from None
