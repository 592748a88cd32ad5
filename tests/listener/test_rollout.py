"""Active, shadow, retired: who answers, who is only compared, and how a step is taken back."""

from dataclasses import replace

import pytest

from listener.entries import Answer, BundleRow, Plan, Role
from listener.errors import VersionTaken
from listener.ledger import Ledger
from listener.rollout import (
    CannotRollOut,
    can_roll_back,
    find,
    history,
    promote,
    registered,
    roll_back,
    set_aside,
)
from tests.listener.test_ledger import (  # noqa: F401
    BUNDLE,
    a_report,
    clock,
    ledger,
    only,
    postgresql,
    received,
)

NEWER = BundleRow("fistula", "demo", "1.1.0", "b" * 64)
ABLE = {BUNDLE.edition, NEWER.edition}


@pytest.fixture
def both(ledger: Ledger) -> Ledger:  # noqa: F811
    """A ledger that knows an active bundle and a shadow."""
    assert ledger.register_bundle(BUNDLE) == "active"
    assert ledger.register_bundle(NEWER) == "shadow"
    return ledger


def plan(book: Ledger, *sops: str) -> dict[Role, str]:
    """Receive, complete and plan a study for all that are wanted; its jobs by role."""
    book.record([received(sop) for sop in sops])
    book.complete(only(book), "quiet")
    return replan(book)


def replan(book: Ledger) -> dict[Role, str]:
    ((study_uid, revision),) = book.unplanned()
    inputs = tuple(book.instances_of(study_uid))
    wanted = [(Plan("fistula", "1.1", inputs), each) for each in book.wanted_bundles("fistula")]
    queued = book.plan(study_uid, revision, wanted, {})
    roles = {job.job_id: job.role for job in book.queued()}
    return {roles[job_id]: job_id for job_id in queued}


def answer(book: Ledger, job_id: str, *found: str, state: str = "REPORTED") -> None:
    with book.lease(job_id, "worker", 60, ABLE) as lease:
        assert lease is not None
        results = [a_report(job_id, sop) for sop in found]
        book.keep(lease.job, Answer(state, found=results, lineage={"site": "a"}))


def states(book: Ledger) -> dict[str, str]:
    known = book.study("1")
    assert known is not None
    return {job["job_id"]: job["state"] for job in known["jobs"]}


def test_a_shadow_runs_on_the_same_study_and_nothing_of_it_is_sent(both: Ledger) -> None:
    jobs = plan(both, "1.1.1")
    answer(both, jobs["shadow"], "2.25.7")

    assert both.due("pacs") == []
    assert both.counts()["instances"] == {"waiting": 1}
    answer(both, jobs["active"], "2.25.1")
    both.set_destinations(["pacs", "research"])

    assert [each.encodings[0].sop_uid for each in both.due("pacs")] == ["2.25.1"]
    assert both.due("research") == []
    assert both.counts()["instances"] == {"used": 1}
    assert [each.sop_uid for each in both.results_of(jobs["shadow"])] == ["2.25.7"]


def test_a_shadow_neither_precedes_nor_outdates_what_is_sent(both: Ledger) -> None:
    first = plan(both, "1.1.1")
    answer(both, first["shadow"])
    second = plan(both, "1.1.2")
    with both.lease(second["active"], "worker", 60, ABLE) as lease:
        assert lease is not None
        assert lease.job.predecessor is None
    with both.lease(second["shadow"], "worker", 60, ABLE) as lease:
        assert lease is not None
        assert (lease.job.role, lease.job.predecessor) == ("shadow", None)

    assert states(both)[first["active"]] == "SUPERSEDED"


def test_a_promoted_bundle_answers_what_waits_even_where_its_shadow_has_judged(
    both: Ledger,
) -> None:
    jobs = plan(both, "1.1.1")
    answer(both, jobs["shadow"], "2.25.7")
    promote(both, "fistula", NEWER.edition, "ann")
    assert both.supersede_unwanted() == 1

    again = replan(both)

    assert again.keys() == {"active"}
    assert again["active"] != jobs["shadow"]
    answer(both, again["active"], "2.25.1")
    assert [each.encodings[0].sop_uid for each in both.due("pacs")] == ["2.25.1"]


def test_what_was_answered_is_not_answered_again_by_a_promotion(both: Ledger) -> None:
    jobs = plan(both, "1.1.1")
    answer(both, jobs["active"], "2.25.1")
    promote(both, "fistula", NEWER.edition, "ann")
    both.supersede_unwanted()

    assert both.unplanned() == []
    assert states(both)[jobs["shadow"]] == "SUPERSEDED"


def test_the_queued_jobs_of_a_retired_shadow_are_dropped_and_its_study_is_left_alone(
    both: Ledger,
) -> None:
    jobs = plan(both, "1.1.1")
    set_aside(both, "fistula", NEWER.edition, "retired", "ann")
    both.supersede_unwanted()

    assert states(both) == {jobs["active"]: "QUEUED", jobs["shadow"]: "SUPERSEDED"}
    assert both.unplanned() == []
    assert [each.role for each in registered(both)] == ["active", "retired"]


def test_a_promotion_is_written_down_and_taken_back_in_one_step(both: Ledger) -> None:
    assert can_roll_back(both) == {}
    promote(both, "fistula", NEWER.edition, "ann")
    assert both.active_bundle("fistula") == NEWER
    assert can_roll_back(both)["fistula"].before == BUNDLE.edition
    assert roll_back(both, "fistula", "ben") == BUNDLE
    assert both.active_bundle("fistula") == BUNDLE

    told = [(each.actor, each.what, each.edition, each.before) for each in history(both)]
    assert told == [
        ("ben", "rolled back", BUNDLE.edition, NEWER.edition),
        ("ann", "promoted", NEWER.edition, BUNDLE.edition),
        ("a worker", "registered as shadow", NEWER.edition, None),
        ("a worker", "registered as active", BUNDLE.edition, None),
    ]
    assert can_roll_back(both) == {}
    with pytest.raises(CannotRollOut, match="taken back already"):
        roll_back(both, "fistula", "ben")


def test_only_the_promotion_that_was_meant_is_taken_back(both: Ledger) -> None:
    promote(both, "fistula", NEWER.edition, "ann")
    meant = can_roll_back(both)["fistula"].number
    promote(both, "fistula", BUNDLE.edition, "ben")

    with pytest.raises(CannotRollOut, match=r"version 1\.0\.0 was promoted meanwhile"):
        roll_back(both, "fistula", "ann", meant)

    assert both.active_bundle("fistula") == BUNDLE
    assert roll_back(both, "fistula", "ann", can_roll_back(both)["fistula"].number) == NEWER


def test_a_promotion_can_be_taken_back_after_any_number_of_other_steps(both: Ledger) -> None:
    promote(both, "fistula", NEWER.edition, "ann")
    for role in ("shadow", "retired") * 60:
        set_aside(both, "fistula", BUNDLE.edition, role, "ben")

    assert all(each.before is None for each in history(both))
    assert can_roll_back(both)["fistula"].edition == NEWER.edition
    assert roll_back(both, "fistula", "ann") == BUNDLE


def test_a_worker_that_starts_again_changes_no_decision(both: Ledger) -> None:
    promote(both, "fistula", NEWER.edition, "ann")

    assert both.register_bundle(BUNDLE) == "retired"
    assert both.register_bundle(NEWER) == "active"


def test_other_thresholds_need_another_version_as_other_weights_do(
    ledger: Ledger,  # noqa: F811
) -> None:
    sealed = replace(BUNDLE, seal="1" * 64, card={"threshold_low": 0.2})
    ledger.register_bundle(sealed)

    with pytest.raises(VersionTaken, match="publish what differs under another version"):
        ledger.register_bundle(replace(sealed, seal="2" * 64, card={"threshold_low": 0.01}))
    assert registered(ledger)[0].card == {"threshold_low": 0.2}
    assert ledger.register_bundle(sealed) == "active"


def test_decisions_that_make_no_sense_are_refused_with_what_to_do(both: Ledger) -> None:
    with pytest.raises(CannotRollOut, match="nothing was promoted yet"):
        roll_back(both, "fistula", "ann")
    with pytest.raises(CannotRollOut, match="active already"):
        promote(both, "fistula", BUNDLE.edition, "ann")
    with pytest.raises(CannotRollOut, match="no worker registered version 7"):
        promote(both, "fistula", ("c" * 64, "7"), "ann")
    with pytest.raises(CannotRollOut, match="results would stop"):
        set_aside(both, "fistula", BUNDLE.edition, "retired", "ann")


def test_a_bundle_is_found_by_its_version_or_the_beginning_of_its_digest(both: Ledger) -> None:
    twin = replace(NEWER, name="other", weights_sha256="bc" * 32)
    both.register_bundle(twin)

    assert find(both, "fistula", "1.0.0") == BUNDLE
    assert find(both, "fistula", "bcb") == twin
    with pytest.raises(CannotRollOut, match="2 bundles are"):
        find(both, "fistula", "1.1.0")
    with pytest.raises(CannotRollOut, match=r"no bundle is '9'; workers registered demo 1\.0\.0"):
        find(both, "fistula", "9")
