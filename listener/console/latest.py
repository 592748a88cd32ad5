"""Studies by when something of them came last: the order of the worklist, and a place in it."""

from dataclasses import dataclass
from typing import Self

from sqlalchemy import ColumnElement, and_, or_

from listener.series import UID, UID_LENGTH
from listener.tables import studies

LATEST_FIRST = (studies.c.last_at.desc(), studies.c.study_uid.desc())
LATEST_LAST = (studies.c.last_at, studies.c.study_uid)


@dataclass(frozen=True)
class Place:
    """Where a page of studies ends."""

    last_at: float
    study_uid: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `__str__` wrote; raises ValueError where it did not write it."""
        at, _, study_uid = text.partition("_")
        if not UID.fullmatch(study_uid) or len(study_uid) > UID_LENGTH:
            raise ValueError("a place in the worklist is a time and a UID, joined by _")
        return cls(float(at), study_uid)

    def __str__(self) -> str:
        return f"{self.last_at!r}_{self.study_uid}"

    @property
    def earlier(self) -> ColumnElement[bool]:
        """What comes after it in the worklist; an index on the time is of use."""
        at, uid = studies.c.last_at, studies.c.study_uid
        return and_(at <= self.last_at, or_(at < self.last_at, uid < self.study_uid))

    @property
    def later(self) -> ColumnElement[bool]:
        """What comes before it in the worklist."""
        at, uid = studies.c.last_at, studies.c.study_uid
        return and_(at >= self.last_at, or_(at > self.last_at, uid > self.study_uid))
