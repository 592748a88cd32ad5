"""What every page and every answer of the console is made from, and who asks for it."""

from dataclasses import dataclass, field
from typing import cast

from starlette.exceptions import HTTPException
from starlette.requests import Request

from listener.audit.codes import RESTRICTED_FUNCTION
from listener.audit.message import Participant
from listener.audit.trail import Audit
from listener.console.choice import Choice, HeaderReader, Headers, choices
from listener.console.gate.accounts import Account
from listener.console.job import JobView
from listener.console.looks import Looks
from listener.console.patients import Patients
from listener.console.study import StudyView, read_study
from listener.console.wellbeing import Look
from listener.entries import Retried
from listener.errors import BadAttribute
from listener.ledger import Ledger
from listener.selection import ANALYSES
from listener.series import require_uid
from listener.settings import ListenerSettings
from listener.spool import Spool

WORKLIST = "worklist"


@dataclass(frozen=True, eq=False)
class Desk:
    """What the console works with.

    Attributes:
        patients: names, in memory only.
        headers: of studies, from the spool.
        look: tries whether the listener is well.
        looks: at studies, of which the audit trail was told lately.
    """

    settings: ListenerSettings
    ledger: Ledger
    spool: Spool
    audit: Audit
    patients: Patients
    headers: HeaderReader
    look: Look
    looks: Looks = field(default_factory=Looks)

    def study(self, study_uid: str) -> StudyView:
        """All that is known of a study; raises HTTPException 404 where nothing is."""
        try:
            require_uid("StudyInstanceUID", study_uid)
        except BadAttribute:
            raise HTTPException(404, "this is no Study Instance UID") from None
        found = read_study(self.ledger, study_uid)
        if found is None:
            raise HTTPException(404, f"no study {study_uid} was received")
        return found

    def job(self, study_uid: str, job_id: str) -> tuple[StudyView, JobView]:
        """A study and one of its jobs; raises HTTPException 404."""
        study = self.study(study_uid)
        found = study.job(job_id)
        if found is None:
            raise HTTPException(404, f"study {study_uid} has no job {job_id}")
        return study, found

    def looked_at(self, request: Request) -> None:
        """Put into the audit trail that somebody reads parts of a study, once in a while."""
        study_uid = request.path_params.get("study_uid")
        if request.method != "GET" or study_uid is None:
            return
        try:
            require_uid("StudyInstanceUID", study_uid)
        except BadAttribute:
            return  # there is no such study
        self.glanced_at(request, study_uid)

    def glanced_at(self, request: Request, study_uid: str) -> None:
        """The same of a study that the path does not name."""
        if self.looks.is_new(account_of(request).name, study_uid):
            self.viewed(request, study_uid)

    def viewed(self, request: Request, study_uid: str) -> None:
        """Put into the audit trail that somebody looked at a study."""
        self.looks.is_new(account_of(request).name, study_uid)
        self.audit.viewed(study_uid, self.ledger.path_of(study_uid), visitor(request))

    def listed(self, request: Request) -> None:
        """Put into the audit trail that somebody reads the worklist, once in a while."""
        if self.looks.is_new(account_of(request).name, WORKLIST):
            self.audit.searched("", visitor(request))

    def searched(self, request: Request, text: str) -> None:
        """Put into the audit trail that somebody searches for patients, each time."""
        self.audit.searched(text, visitor(request))

    def retry(self, request: Request, study_uid: str, destination: str | None) -> Retried:
        """Run again and send again.

        Raises:
            HTTPException: 404, there is no such study.
        """
        self.study(study_uid)
        what = "retry" if destination is None else f"retry of deliveries to {destination}"
        try:
            done = self.ledger.retry(study_uid, destination)
        except BaseException:
            self._acted(request, what, study_uid, failed=True)
            raise
        self._acted(request, what, study_uid)
        return done

    def cancel(self, request: Request, study_uid: str) -> int:
        """Stop the jobs of a study; returns how many; raises HTTPException 404."""
        self.study(study_uid)
        try:
            stopped = self.ledger.cancel(study_uid)
        except BaseException:
            self._acted(request, "cancel", study_uid, failed=True)
            raise
        self._acted(request, "cancel", study_uid)
        return stopped

    def read_headers(self, study: StudyView) -> Headers:
        """What the headers of a study say, as far as its files are there."""
        return self.headers.read(study)

    def choices(self, headers: Headers) -> tuple[Choice, ...]:
        """What each analysis that is known would take; nothing where that cannot be told."""
        return () if headers.missing else choices(ANALYSES, headers.images)

    def _acted(self, request: Request, what: str, study_uid: str, *, failed: bool = False) -> None:
        self.audit.acted(
            what, study_uid, failed=failed, kind=RESTRICTED_FUNCTION, by=visitor(request)
        )


def require_operator(request: Request) -> None:
    """Refuse viewers; raises HTTPException 403."""
    if not is_operator(request):
        raise HTTPException(403, "this needs an operator")


def account_of(request: Request) -> Account:
    """Who asks; the gate lets nobody else come so far."""
    return cast(Account, request.state.account)


def is_operator(request: Request) -> bool:
    """Whether who asks may change something, and take files along."""
    return account_of(request).may_act_as("operator")


def visitor(request: Request) -> Participant:
    """Who asks, for the audit trail."""
    return cast(Participant, request.state.by)
