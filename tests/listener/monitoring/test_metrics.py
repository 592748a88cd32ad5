"""What Prometheus is told: figures of a real ledger, scraped over HTTP and parsed."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from listener.audit.trail import NO_AUDIT
from listener.entries import BundleRow, Early, Result
from listener.ledger import Ledger
from listener.monitoring import metrics
from listener.monitoring.health import Health
from listener.monitoring.pulse import Pulse
from listener.monitoring.routes import routes
from listener.monitoring.selftests import Outcome, write_outcome
from listener.monitoring.telling import MOST_INPUTS
from listener.rollout import promote, set_aside
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import bundles, deliveries, studies
from listener.turned_away import Reason, Service, TurnedAway
from listener.workforce import Worker, Workforce
from tests.listener.conftest import BUNDLE
from tests.listener.monitoring.conftest import SCANNER, Clinic, refused, reported, serving

Scrape = Callable[[], "Scraped"]


class Scraped:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """Of the one sample that has these labels, perhaps among others."""
        found = self.values(name, **labels)
        assert len(found) <= 1, found
        return found[0] if found else None

    def values(self, name: str, **labels: str) -> list[float]:
        return [
            float(each.value)
            for each in self.samples
            if each.name == name and labels.items() <= each.labels.items()
        ]


@pytest.fixture
def turned_away() -> TurnedAway:
    return TurnedAway(2)


@pytest.fixture
def scrape(
    tmp_path: Path,
    clinic: Clinic,
    turned_away: TurnedAway,
    settings_for: Callable[..., ListenerSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scrape]:
    """Scrapes a listener whose figures are never older than the question."""
    monkeypatch.setattr(metrics, "REMEMBERED_SECONDS", 0.0)
    monkeypatch.setattr(metrics, "SHARE_OF_TIME", 0.0)
    settings = settings_for()
    spool = Spool(settings.spool)
    health = Health(settings, clinic.ledger, spool, NO_AUDIT, Pulse())
    served = routes(settings, clinic.ledger, spool, health, turned_away)
    with serving(served) as ask:

        def once() -> Scraped:
            answer = ask("/metrics")
            assert answer.status == 200
            return Scraped(answer.body.decode())

        yield once


def test_what_was_received_answered_and_refused(clinic: Clinic, scrape: Scrape) -> None:
    clinic.study(reported(), instances=3)
    clinic.study(refused("REASON-NO-CONTRAST"), instances=2)
    clinic.study(refused("REASON-INTERNAL", retriable=True))
    clinic.study(None)
    told = scrape()

    assert told.value("monro_instances_received_total") == 7
    assert told.value("monro_studies", state="COMPLETE") == 4
    assert told.value("monro_answers_total", answer="report") == 1
    assert told.value("monro_answers_total", answer="refusal") == 1
    assert told.value("monro_conclusions_total", band="high") == 1
    assert told.value("monro_refusals_total", reason="REASON-NO-CONTRAST") == 1
    assert told.value("monro_refusals_total", reason="REASON-INTERNAL") is None
    assert told.value("monro_jobs", state="REFUSED") == 1
    assert told.value("monro_jobs", state="QUEUED") == 1
    assert told.value("monro_stage_seconds_count", stage="infer") == 1
    assert told.value("monro_stage_seconds_bucket", stage="infer", le="3.0") == 1
    age = told.value("monro_oldest_queued_job_age_seconds", analysis="fistula", role="active")
    assert age == pytest.approx(time.time() - 1000, abs=60)


def test_how_long_studies_wait_for_their_completion(clinic: Clinic, scrape: Scrape) -> None:
    assert scrape().value("monro_study_completion_seconds_count") == 0
    clinic.study(reported())
    scrape()

    assert scrape().value("monro_study_completion_seconds_count") == 1


def test_results_that_wait_and_results_that_cannot_be_sent(
    ledger: Ledger, clinic: Clinic, scrape: Scrape, outbox: list[Result]
) -> None:
    with ledger.writing() as connection:
        this = update(deliveries).where(deliveries.c.sop_uid == outbox[0].sop_uid)
        connection.execute(this.values(state="PARKED"))
    told = scrape()

    assert told.value("monro_deliveries", destination="pacs", state="PENDING") == 1
    assert told.value("monro_deliveries", destination="pacs", state="PARKED") == 1
    waits = told.value("monro_oldest_pending_delivery_age_seconds", destination="pacs")
    assert waits is not None
    assert 0 <= waits < 60
    with ledger.writing() as connection:
        sent = {"state": "SENT", "next_at": ledger.now}
        connection.execute(update(deliveries).values(**sent))
    told = scrape()
    assert told.value("monro_deliveries", destination="pacs", state="SENT") == 2
    assert told.value("monro_deliveries", destination="pacs", state="PENDING") is None
    assert told.value("monro_oldest_pending_delivery_age_seconds", destination="pacs") is None


def test_an_early_report_waits_from_the_start_of_its_job(
    ledger: Ledger, clinic: Clinic, scrape: Scrape, tmp_path: Path
) -> None:
    ledger.set_destinations(["pacs"])
    job_id = clinic.study(None)
    early = Result("1.9", "1.9.1", "1.2.840.10008.5.1.4.1.1.88.34", "report", 0, 1, tmp_path)
    with ledger.lease(job_id, "worker", 60, {BUNDLE.edition}) as lease:
        assert lease is not None
        ledger.keep_early(lease.job, Early({"probability": 0.5}, [early], {}))
        told = scrape()

    waits = told.value("monro_oldest_pending_delivery_age_seconds", destination="pacs")
    assert waits is not None
    assert told.value("monro_jobs", state="RUNNING") == 1


def test_workers_and_their_memory(ledger: Ledger, scrape: Scrape) -> None:
    now = ledger.now
    held = [("fistula", *BUNDLE.edition)]
    memory = {"used": 3, "total": 4}
    assert scrape().value("monro_analysis_has_worker", analysis="fistula") == 0
    Workforce(ledger).beat(Worker("host:1", now, now, "cuda", held, memory))
    Workforce(ledger).beat(Worker("host:2", now, now - 61, "cuda", held, memory))
    told = scrape()

    assert told.value("monro_workers_alive") == 1
    assert told.value("monro_analysis_has_worker", analysis="fistula") == 1
    assert told.values("monro_workers_memory_used_bytes") == [3]
    assert told.value("monro_workers_memory_total_bytes", worker="host:1", device="cuda") == 4


def test_a_shadow_that_no_living_worker_holds_is_told_from_one_that_is_held(
    ledger: Ledger, scrape: Scrape
) -> None:
    shadow, now = replace(BUNDLE, version="2.0.0", weights_sha256="b" * 64), ledger.now
    retired = replace(BUNDLE, version="3.0.0", weights_sha256="c" * 64)
    for each in (shadow, retired):
        ledger.register_bundle(each)
    set_aside(ledger, "fistula", retired.edition, "retired", "ann")
    active = {"analysis": "fistula", "role": "active", "bundle": "1.0.0 aaaaaaaa"}
    beside = {"analysis": "fistula", "role": "shadow", "bundle": "2.0.0 bbbbbbbb"}

    def beat(*held: BundleRow, age: float = 0) -> None:
        editions = [("fistula", *each.edition) for each in held]
        Workforce(ledger).beat(Worker("host:1", now, now - age, "cpu", editions, {}))

    beat(BUNDLE)
    told = scrape()
    assert told.value("monro_bundle_has_worker", **active) == 1
    assert told.value("monro_bundle_has_worker", **beside) == 0
    assert len(told.values("monro_bundle_has_worker")) == 2
    beat(BUNDLE, shadow)
    assert scrape().values("monro_bundle_has_worker") == [1, 1]
    beat(BUNDLE, shadow, age=61)
    assert scrape().values("monro_bundle_has_worker") == [0, 0]


def test_what_is_turned_away_at_the_door_is_told_from_zero_on(
    turned_away: TurnedAway, scrape: Scrape
) -> None:
    of_dimse = {"service": "DIMSE", "reason": "spool full"}
    assert scrape().value("monro_associations_rejected_total", **of_dimse) == 0
    assert scrape().value("monro_instances_refused_total", **of_dimse) == 0
    for process in range(2):
        turned_away.clicker(process).association(Service.DIMSE, Reason.FULL)
    turned_away.clicker(1).instance(Service.STOW, Reason.MALFORMED)
    told = scrape()

    assert told.value("monro_associations_rejected_total", **of_dimse) == 2
    assert told.value("monro_instances_refused_total", **of_dimse) == 0
    assert sum(told.values("monro_instances_refused_total")) == 1
    assert told.value("monro_instances_refused_total", service="STOW-RS", reason="malformed") == 1


def test_a_scanner_that_fell_silent(ledger: Ledger, clinic: Clinic, scrape: Scrape) -> None:
    now, hour = ledger.now, 3600.0
    for number in range(12):
        clinic.study(reported(), scanner="busy")
        clinic.study(reported(), scanner="replaced")
        with ledger.writing() as connection:
            for study, at in (
                (f"1.2.{2 * number + 1}", now - (20 + number) * hour),
                (f"1.2.{2 * number + 2}", now - (31 * 24 + number) * hour),
            ):
                this = update(studies).where(studies.c.study_uid == study)
                connection.execute(this.values(last_at=at))
    for _ in range(9):
        clinic.study(reported(), scanner="rare")
    told = scrape()

    silence = told.value("monro_scanner_silence_seconds", scanner="busy")
    assert silence == pytest.approx(20 * hour, abs=60)
    assert told.value("monro_scanner_longest_pause_seconds", scanner="busy") == pytest.approx(hour)
    assert told.value("monro_scanner_longest_pause_seconds", scanner="rare") is None
    assert told.value("monro_scanner_silence_seconds", scanner="replaced") is None


def test_drift_is_told_once_there_are_studies_enough(
    ledger: Ledger, clinic: Clinic, scrape: Scrape
) -> None:
    tenths = [each / 10 for each in range(11)]
    card = {"validation": {"edges": tenths, "patients": [10] * 10, "positives": [1] * 10}}
    with ledger.writing() as connection:
        connection.execute(update(bundles).values(card=card))
    for number in range(99):
        clinic.study(reported(0.05, percentile=number + 0.5))
    told = scrape()
    assert told.value("monro_drift_studies", scanner=SCANNER, of="score") == 99
    assert told.values("monro_drift_population_stability_index") == []
    clinic.study(reported(0.05, percentile=99.5))
    told = scrape()

    name = "monro_drift_population_stability_index"
    for scanner in (SCANNER, "(all)"):
        score = told.value(name, scanner=scanner, of="score", role="active")
        assert score is not None
        assert score > 1
        percentile = told.value(name, scanner=scanner, of="ood_percentile", role="active")
        assert percentile == pytest.approx(0, abs=1e-6)


def test_what_the_input_was_like_is_told_in_its_own_units(clinic: Clinic, scrape: Scrape) -> None:
    for number in range(19):
        clinic.study(reported(input={"noise": float(number), "step": 1.0}))
    assert scrape().values("monro_input_mean") == []
    clinic.study(reported(input={"noise": 19.0}))
    told = scrape()

    for scanner in (SCANNER, "(all)"):
        where = {"scanner": scanner, "input": "noise", "role": "active"}
        assert told.value("monro_input_mean", **where) == pytest.approx(9.5)
        for quantile, value in (("0.05", 0.95), ("0.5", 9.5), ("0.95", 18.05)):
            found = told.value("monro_input_quantile", quantile=quantile, **where)
            assert found == pytest.approx(value)
    assert told.value("monro_input_mean", scanner=SCANNER, input="step") is None


def test_there_are_only_so_many_inputs_whatever_a_worker_writes(
    clinic: Clinic, scrape: Scrape
) -> None:
    for _ in range(20):
        clinic.study(reported(input={f"input {number:03}": 1.0 for number in range(60)}))

    assert len(scrape().values("monro_input_mean")) == 2 * MOST_INPUTS


def test_only_bundles_in_use_have_scores(ledger: Ledger, clinic: Clinic, scrape: Scrape) -> None:
    clinic.study(reported())
    bundle = "1.0.0 aaaaaaaa"
    assert scrape().value("monro_score_count", scanner=SCANNER, bundle=bundle) == 1
    newer = BundleRow("fistula", "demo", "2.0.0", "b" * 64)
    ledger.register_bundle(newer)
    promote(ledger, "fistula", newer.edition, "ann")
    clinic.study(reported(), bundle=newer)
    told = scrape()

    assert told.value("monro_score_count", scanner=SCANNER, bundle=bundle) is None
    assert told.value("monro_score_count", scanner=SCANNER, bundle="2.0.0 bbbbbbbb") == 1
    assert told.value("monro_answers_total", answer="report") == 2
    assert told.values("monro_bundle_info") == [1]


def test_the_last_self_test_is_told_of(
    scrape: Scrape, settings_for: Callable[..., ListenerSettings]
) -> None:
    root = settings_for().spool
    write_outcome(root, Outcome("pacs", 1000.0, passed=True, seconds=12.5))
    write_outcome(root, Outcome("pacs", 2000.0, passed=False, seconds=600.0))
    (root / "selftest" / "other.json").write_text("{torn")
    told = scrape()

    assert told.value("monro_selftest_passed", destination="pacs") == 0
    finished = told.value("monro_selftest_finished_timestamp_seconds", destination="pacs")
    assert finished == 2000
    assert told.values("monro_selftest_duration_seconds") == [600]


def test_without_a_ledger_the_rest_is_told_and_nothing_old(
    clinic: Clinic, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.study(reported())
    assert scrape().value("monro_ledger_answers") == 1
    with clinic.ledger.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE studies RENAME TO elsewhere")
    told = scrape()

    assert told.value("monro_ledger_answers") == 0
    assert told.value("monro_instances_received_total") is None
    assert told.value("monro_spool_free_bytes") is not None
    assert told.value("monro_readyz_check_ok", check="ledger") == 1
    assert told.value("monro_readyz_check_ok", check="broker") == 0


def test_figures_are_remembered_for_a_while(
    clinic: Clinic, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "REMEMBERED_SECONDS", 60.0)
    before = scrape()
    clinic.study(reported())
    after = scrape()

    assert before.value("monro_instances_received_total") == 0
    assert after.value("monro_instances_received_total") == 0
    age = after.value("monro_figures_age_seconds")
    assert age is not None
    assert age > 0


def test_names_are_as_prometheus_has_them_and_nothing_tells_of_a_patient(
    clinic: Clinic, scrape: Scrape, outbox: list[Result]
) -> None:
    clinic.study(reported())
    clinic.study(None)
    told = scrape()

    ours = [family for family in told.families if family.name.startswith("monro_")]
    assert len(ours) > 30
    for family in ours:
        assert re.fullmatch("monro_[a-z0-9_]+", family.name)
        assert family.documentation
    uid = re.compile(r"\b\d+\.\d+\.\d+\.\d+|[0-9a-f]{8}-[0-9a-f]{4}-")
    for sample in told.samples:
        assert not any(uid.search(value) for value in sample.labels.values()), sample
    assert "PLANTED" not in told.text


def test_a_model_that_says_the_same_of_everybody_is_seen(clinic: Clinic, scrape: Scrape) -> None:
    for number in range(20):
        clinic.study(reported(0.4837 if number % 4 else number / 20))
        if number == 18:
            assert scrape().values("monro_score_most_frequent_share") == []

    assert scrape().value("monro_score_most_frequent_share", scanner=SCANNER) == 0.75
