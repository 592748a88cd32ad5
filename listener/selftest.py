"""A synthetic study the whole way round: in at our own port, answered, and back at a destination.

It goes the way that every study goes: through the listener that runs, its workers and couriers,
with the site's own settings. What is watched is the ledger; in the end the destination is asked.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from listener.audit.trail import Audit
from listener.errors import SelfTestFailed, SourceFailed
from listener.front_door import our_port, require_admission, send
from listener.inventory import list_instances
from listener.knock import answers
from listener.ledger import Ledger
from listener.remote import Destination, Source, WebDestination, WebSource
from listener.settings import ListenerSettings
from listener.specimen import read_specimen, stamp
from listener.tables import deliveries, jobs, results

LOOK_SECONDS: Final = 0.3
"""Pause between looks at the ledger."""

ASK_SECONDS: Final = 2.0
"""Pause between questions to the destination."""

SENDING: Final = "sending"
COMPLETION: Final = "completion"
QUEUE: Final = "queue"
ANALYSIS: Final = "analysis"
DELIVERY: Final = "delivery"
ARRIVAL: Final = "arrival"

NEXT_STEPS: Final[Mapping[str, str]] = {
    COMPLETION: "see that `listener serve` runs on this ledger, `show` the study, and have more "
    "--patience than MONRO_RELEASED_QUIET_SECONDS",
    QUEUE: "see that a worker runs that holds the active bundle (/readyz tells), and how long the "
    "queue is (`status`)",
    ANALYSIS: "have more --patience, or see the worker's log",
    DELIVERY: "see that the destination runs and takes our results; `show` the study tells what it "
    "answered",
    ARRIVAL: "see that the destination shows what it stored to C-FIND or QIDO-RS, and knows us",
}
"""What to do where a self-test is stuck, by its step."""


@dataclass(frozen=True)
class Passed:
    """A self-test that came to its end.

    Attributes:
        study_uid: that it was about.
        sent: instances.
        arrived: results.
        seconds: per step, in order.
        answers: what each analysis answered: a state, and of a refusal its reason.
        way: how it is known that they arrived.
    """

    study_uid: str
    sent: int
    arrived: int
    seconds: Mapping[str, float]
    answers: Sequence[str]
    way: str


def destination_named(settings: ListenerSettings, name: str) -> Destination | WebDestination:
    """A destination of the settings.

    Raises:
        SelfTestFailed: there is none of this name.
    """
    for each in settings.destinations:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in settings.destinations)
    raise SelfTestFailed(f"no destination {name} is known", f"name one of {known}")


class SelfTest:
    """One self-test.

    Args:
        settings: of the listener that runs.
        ledger: of that listener.
        destination: that its results must arrive at.
        audit: is told of each question to it.
        patience_seconds: for all of it.
        on_step: is told how far it is.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        ledger: Ledger,
        destination: Destination | WebDestination,
        audit: Audit,
        patience_seconds: float,
        on_step: Callable[[str], None],
    ) -> None:
        self._settings, self._ledger, self._audit = settings, ledger, audit
        self._destination, self._on_step = destination, on_step
        self._patience = patience_seconds
        self._begun = time.monotonic()
        self._asked_at = -ASK_SECONDS
        self._said = ""
        self.seconds: dict[str, float] = {}

    def run(self, folder: Path) -> Passed:
        """Send the study of a folder, and see that its results arrive.

        Raises:
            NoSpecimen: it is none that may be sent.
            SelfTestFailed: something on the way does not work.
        """
        self._begun = time.monotonic()
        instances = read_specimen(folder)
        ours = our_port(self._settings)
        require_admission(self._settings, ours)
        if not answers(self._destination, self._settings):
            raise SelfTestFailed(
                f"destination {self._destination.name} does not answer",
                "start it, or correct it in MONRO_DESTINATIONS; `check-config` knocks again",
            )
        study_uid = stamp(instances, datetime.now().astimezone())
        self._on_step(f"sending {len(instances)} instances to {ours.host}:{ours.port}")
        send(instances, ours, self._settings)
        self.seconds[SENDING] = time.monotonic() - self._begun
        way = self._watch(study_uid)
        return Passed(
            study_uid,
            len(instances),
            len(self._sent(study_uid)),
            self.seconds,
            [_told(job) for job in self._jobs(study_uid)],
            way,
        )

    def _watch(self, study_uid: str) -> str:
        """Look until all results arrived; returns how that is known."""
        looked_at = time.monotonic()
        while True:
            known = self._ledger.study(study_uid)
            step, detail = step_of(known, self._destination.name)
            self._on_step(f"{step}: {detail}")
            way = self._arrived(study_uid, known) if step == ARRIVAL else None
            now = time.monotonic()
            self.seconds[step] = self.seconds.get(step, 0.0) + now - looked_at
            looked_at = now
            if way is not None:
                return way
            if now - self._begun > self._patience:
                said = f"; {self._said}" if step == ARRIVAL and self._said else ""
                raise SelfTestFailed(
                    f"study {study_uid} is not further than {step} after "
                    f"{self._patience:g} s ({detail}{said})",
                    NEXT_STEPS[step],
                )
            time.sleep(LOOK_SECONDS)

    def _arrived(self, study_uid: str, known: Mapping[str, Any] | None) -> str | None:
        """How it is known that every result is there; None while it is not."""
        if time.monotonic() - self._asked_at < ASK_SECONDS:
            return None
        self._asked_at = time.monotonic()
        wanted = set(self._sent(study_uid))
        try:
            listed = list_instances(
                _as_source(self._destination), self._settings, study_uid, audit=self._audit
            )
        except SourceFailed as error:
            self._said = error.found
            states = {
                row["state"]
                for row in (known or {}).get("deliveries", ())
                if row["destination"] == self._destination.name
            }
            if states == {"CONFIRMED"}:
                return "committed to by the destination"
            return "acknowledged only" if self._destination.confirm == "none" else None
        missing = wanted - {each.sop_uid for each in listed}
        self._said = f"{len(missing)} of {len(wanted)} results are not shown"
        return "shown by the destination" if wanted and not missing else None

    def _sent(self, study_uid: str) -> list[str]:
        """Instance UIDs of the results, in the encoding that the destination took."""
        query = (
            select(deliveries.c.sent_as)
            .join(results, results.c.sop_uid == deliveries.c.sop_uid)
            .join(jobs, jobs.c.job_id == results.c.job_id)
            .where(
                jobs.c.study_uid == study_uid,
                deliveries.c.destination == self._destination.name,
                deliveries.c.sent_as.is_not(None),
            )
        )
        with self._ledger.reading() as connection:
            return [uid for uid in connection.scalars(query) if uid is not None]

    def _jobs(self, study_uid: str) -> list[dict[str, Any]]:
        return _live((self._ledger.study(study_uid) or {}).get("jobs", ()))


def step_of(known: Mapping[str, Any] | None, destination: str) -> tuple[str, str]:
    """Which step a study is at, and what is to be seen of it.

    Args:
        known: what `Ledger.study` says.
        destination: that its results must arrive at.

    Raises:
        SelfTestFailed: it will not get any further.
    """
    if known is None:
        return COMPLETION, "not in the ledger yet"
    uid = known["study_uid"]
    if known["state"] != "COMPLETE" or known["planned_revision"] < known["revision"]:
        return COMPLETION, known["reason"] or "waits for more instances"
    live = _live(known["jobs"])
    if not live:
        reasons = "; ".join(sorted({row["reason"] or "" for row in known["instances"]}))
        raise SelfTestFailed(
            f"no analysis wants study {uid} ({reasons})",
            "name a study that MONRO_ANALYSES asks for",
        )
    for job in live:
        if job["state"] in ("FAILED", "CANCELLED"):
            raise SelfTestFailed(
                f"the {job['analysis']} job of study {uid} ended as {job['state']} "
                f"({job['reason']})",
                "see the worker's log",
            )
        if job["state"] == "REFUSED" and job["retriable"]:
            raise SelfTestFailed(
                f"the {job['analysis']} analysis of study {uid} failed ({job['reason']})",
                "see the worker's log",
            )
    for state, step in (("RUNNING", ANALYSIS), ("QUEUED", QUEUE)):
        at_it = [job for job in live if job["state"] == state]
        if at_it:
            progress = next((job["progress"] for job in at_it if job["progress"]), "")
            return step, f"{len(at_it)} of {len(live)} jobs {state} {progress}".rstrip()
    if all(job["state"] == "REFUSED" for job in live):
        reasons = "; ".join(sorted({job["reason"] or "" for job in live}))
        raise SelfTestFailed(
            f"study {uid} was refused ({reasons})",
            "name a study that the bundles can judge, or see the worker's log",
        )
    return _step_of_delivery(known, destination)


def _step_of_delivery(known: Mapping[str, Any], destination: str) -> tuple[str, str]:
    ours = [row for row in known["deliveries"] if row["destination"] == destination]
    if not ours:
        raise SelfTestFailed(
            f"no result of study {known['study_uid']} is meant for {destination}",
            "start the listener with the settings that this command has",
        )
    counts = dict.fromkeys(("PENDING", "PARKED", "SENT", "CONFIRMED"), 0)
    for row in ours:
        counts[row["state"]] += row["count"]
    messages = "; ".join(sorted({row["message"] for row in ours if row["message"]}))
    if counts["PARKED"]:
        raise SelfTestFailed(
            f"{destination} rejected {counts['PARKED']} results of study {known['study_uid']} "
            f"({messages})",
            "see what it takes, and `retry` the study",
        )
    total = sum(counts.values())
    detail = f"{total - counts['PENDING']} of {total} results sent"
    if counts["PENDING"]:
        return DELIVERY, f"{detail}; {messages}" if messages else detail
    return ARRIVAL, f"{detail}, {counts['CONFIRMED']} confirmed"


def _live(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Jobs whose results are sent, and that no other replaced."""
    return [row for row in rows if row["state"] != "SUPERSEDED" and row["role"] == "active"]


def _told(job: Mapping[str, Any]) -> str:
    reason = f": {job['reason']}" if job["state"] == "REFUSED" else ""
    return f"{job['analysis']} {job['state']}{reason}"


def _as_source(destination: Destination | WebDestination) -> Source | WebSource:
    """A destination as one that is asked what it has."""
    if isinstance(destination, WebDestination):
        return WebSource(
            name=destination.name, url=destination.url, token_file=destination.token_file
        )
    return Source(
        name=destination.name,
        ae_title=destination.ae_title,
        host=destination.host,
        port=destination.port,
        tls=destination.tls,
    )
