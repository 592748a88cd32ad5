"""Bundles change their roles at the console, shadows are compared, and labels are brought."""

import base64
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from listener.console import looks
from listener.entries import Answer, BundleRow
from listener.workforce import Worker, Workforce
from tests.listener.audit.reading import Message
from tests.listener.console.conftest import BUNDLE, Browser, House, a_head
from tests.listener.console.test_pages import text_of

People = Callable[..., Browser]

NEWER = replace(BUNDLE, version="2.0.0", weights_sha256="b" * 64)
ABLE = {BUNDLE.edition, NEWER.edition}
PLACE = f"/bundles/fistula/{NEWER.weights_sha256}/{NEWER.version}"


def a_worker_holds(house: House, *held: BundleRow) -> None:
    editions = [(each.analysis, *each.edition) for each in held]
    now = house.ledger.now
    Workforce(house.ledger).beat(Worker("host:1", now, now, "cpu", editions, {}))


def judge_by_both(house: House, patient_id: str = "P-1") -> str:
    """A study that the active bundle finds likely, and the shadow does not."""
    study_uid = house.receive(*a_head("DOE^JANE", patient_id))
    for job_id in house.plan():
        with house.ledger.lease(job_id, "worker-1", 60, ABLE) as lease:
            assert lease is not None
            likely = lease.job.role == "active"
            told = {
                "probability": 0.9 if likely else 0.2,
                "band": "suggested" if likely else "not suggested",
            }
            house.ledger.keep(lease.job, Answer("REPORTED", summary=told))
    return study_uid


def test_operators_promote_and_roll_back_and_each_step_bears_their_name(
    console: People, house: House
) -> None:
    house.ledger.register_bundle(NEWER)
    a_worker_holds(house, BUNDLE, NEWER)
    oskar = console("oskar")
    assert "test-bundle 2.0.0 shadow" in text_of(oskar.get("/bundles"))

    asked = oskar.get(f"{PLACE}/role?")
    assert "Promote fistula 2.0.0?" in text_of(asked)
    assert "in the place of test-bundle 1.0.0" in text_of(asked)
    unsaid = oskar.post(f"{PLACE}/role", role="active", reason="  ")
    assert unsaid.status == 422
    assert "Say why: the audit trail keeps it." in unsaid.data.decode()
    assert active_version(house) == "1.0.0"
    why = "better on the\nlabels of March"
    assert oskar.post(f"{PLACE}/role", role="active", reason=why).status == 303
    active = house.ledger.active_bundle("fistula")
    assert active is not None
    assert active.version == "2.0.0"
    assert "oskar promoted fistula 2.0.0 bbbbbbbbbbbb 1.0.0" in text_of(oskar.get("/bundles"))

    form = oskar.get("/bundles/fistula/roll-back")
    assert "Roll back to fistula 1.0.0?" in text_of(form)
    number = re.findall(r'name="number" value="(\d+)"', form)[0]
    back = partial(oskar.post, "/bundles/fistula/roll-back")
    assert back(number=number).status == 422
    other = back(number="1", reason="worse in April")
    assert other.status == 409
    assert "fistula: version 2.0.0 was promoted meanwhile" in other.data.decode()
    assert back(number=number, reason="worse in April").status == 303
    assert oskar.status("/bundles/fistula/roll-back") == 409
    again = back(number=number, reason="once more")
    assert again.status == 409
    assert "the last promotion was taken back already" in again.data.decode()
    steps = oskar.json("/api/rollouts")
    assert [(each["actor"], each["what"]) for each in steps[:2]] == [
        ("oskar", "rolled back"),
        ("oskar", "promoted"),
    ]
    time.sleep(0.5)
    trail = (house.settings.spool / "audit" / "audit.log").read_text()
    assert trail.count("110131") == 4
    written = [base64.b64decode(each) for each in re.findall(' value="([^"]*)"', trail)]
    assert b"fistula 2.0.0: active; reason: better on the labels of March" in written
    assert b"fistula: roll back; reason: worse in April" in written


def test_a_bundle_that_no_living_worker_holds_is_promoted_in_a_second_step_only(
    console: People, house: House
) -> None:
    house.ledger.register_bundle(NEWER)
    oskar = console("oskar")
    listed = text_of(oskar.get("/bundles"))
    assert listed.count("No living worker holds it.") == 2
    assert "Studies wait until one does." in listed
    assert "It judges nothing until one does." in listed
    a_worker_holds(house, BUNDLE)
    assert text_of(oskar.get("/bundles")).count("No living worker holds it.") == 1
    told = {each["version"]: each["has_worker"] for each in oskar.json("/api/bundles")}
    assert told == {"1.0.0": True, "2.0.0": False}

    first = oskar.post(f"{PLACE}/role", role="active", reason="it is better")
    page = text_of(first.data.decode())
    assert first.status == 200
    assert "No living worker holds version 2.0.0 with weights bbbbbbbbbbbb" in page
    assert "Nothing was changed so far." in page
    by_program = oskar.post_json(f"/api{PLACE}/role?role=active", {})
    assert by_program.status == 409
    assert "ask again with without_a_worker=true" in json.loads(by_program.data)["error"]
    assert active_version(house) == "1.0.0"

    form = re.search(r'<form method="post" action="([^"]*/role)"[^>]*>(.*?)</form>',
                     first.data.decode(), re.DOTALL)  # fmt: skip
    assert form
    fields = dict(re.findall(r'name="(\w+)" (?:maxlength="200" )?value="([^"]*)"', form[2]))
    assert fields["reason"] == "it is better"
    assert fields.pop("csrf") == oskar.csrf
    assert oskar.post(form[1], **fields).status == 303
    assert active_version(house) == "2.0.0"


def test_a_program_insists_as_well(console: People, house: House) -> None:
    house.ledger.register_bundle(NEWER)
    oskar = console("oskar")

    done = oskar.post_json(f"/api{PLACE}/role?role=active&without_a_worker=true", {})

    assert done.status == 200
    assert active_version(house) == "2.0.0"


def active_version(house: House) -> str | None:
    active = house.ledger.active_bundle("fistula")
    return active and active.version


def test_viewers_promote_nothing_and_bring_no_labels(console: People, house: House) -> None:
    house.ledger.register_bundle(NEWER)
    vera = console("vera")

    assert "Make it the active bundle" not in vera.get("/bundles")
    assert vera.status(f"{PLACE}/role") == 403
    assert vera.post(f"{PLACE}/role", role="active", reason="mine").status == 403
    assert vera.post_json(f"/api{PLACE}/role?role=active", {}).status == 403
    assert vera.post_json("/api/labels", {"analysis": "fistula", "text": ""}).status == 403


def test_a_shadow_is_compared_with_the_active_bundle_on_what_turned_out_to_be_true(
    console: People, house: House
) -> None:
    house.ledger.register_bundle(NEWER)
    study_uid = judge_by_both(house)
    oskar = console("oskar")
    table = f"study_uid,label\n{study_uid},positive\n1.2.3,negative\n"
    kept = oskar.post_json("/api/labels", {"analysis": "fistula", "text": table})
    assert json.loads(kept.data) == {"labels": 2, "unknown": 1}

    page = text_of(oskar.get(f"{PLACE}/comparison"))

    assert "1 study was judged by both from the same input" in page
    assert "differ by \N{MINUS SIGN}70.0 percentage points on average (shadow less active)" in page
    assert "DOE, JANE P-1" in page
    assert "90.0 % suggested 20.0 % not suggested positive" in page
    assert "Paired scores, the latest first" in page
    assert "90.0 % 20.0 % \N{MINUS SIGN}70.0 positive" in page
    drawn = oskar.data(f"{PLACE}/comparison")
    assert b'<circle cx="90.0" cy="80.0" r="1" class="positive"/>' in drawn
    assert "0 0 25 25 50 50 75 75 100 100 Score of 1.0.0 (active), % Score of 2.0.0" in page
    assert drawn.count(b'<svg class="plot"') == 3, "pairs, and the calibration of both"
    assert oskar.status(f"/bundles/fistula/{'a' * 64}/1.0.0/comparison") == 404
    wrong = oskar.post_json("/api/labels", {"analysis": "fistula", "text": "PLANTED"})
    assert wrong.status == 422
    shadowed = text_of(oskar.get(f"/studies/{study_uid}"))
    assert "1: fistula, shadow shadow: never sent reported 20.0 % not suggested" in shadowed
    assert "20.0 %" not in shadowed[: shadowed.index("All jobs of the study")]


def test_a_comparison_of_the_latest_pairs_says_that_there_are_more(
    console: People, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.ledger.register_bundle(NEWER)
    judge_by_both(house)
    judge_by_both(house, "P-2")
    monkeypatch.setattr("listener.console.rollouts.FEW_COMPARED", 1)
    oskar = console("oskar")

    page = text_of(oskar.get(f"{PLACE}/comparison"))

    assert "Both judged more than 1 studies from the same input: these figures are of" in page
    assert "judged by both" not in page
    more = json.loads(oskar.data(f"/api{PLACE}/comparison?latest=100000"))
    assert (more["studies"], more["is_cut"]) == (2, False)


def test_a_comparison_names_patients_and_is_a_list_for_the_audit_trail(
    console: People, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "LATELY_SECONDS", 0.0)  # signing in led past the worklist
    house.ledger.register_bundle(NEWER)
    judge_by_both(house)
    vera = console("vera")
    trail = house.settings.spool / "audit" / "audit.log"

    def lists() -> int:
        time.sleep(0.5)
        return sum(Message(line).event == "110112" for line in trail.read_text().splitlines())

    before = lists()
    assert "DOE, JANE" in text_of(vera.get(f"{PLACE}/comparison"))
    assert lists() == before + 1


def test_a_table_of_labels_is_uploaded_as_a_file(console: People, house: House) -> None:
    oskar = console("oskar")
    edge = "----edge"
    parts = {"csrf": oskar.csrf, "analysis": "fistula"}
    body = "".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parts.items()
    )
    body += (
        f'--{edge}\r\nContent-Disposition: form-data; name="table"; filename="t.csv"\r\n'
        f"Content-Type: text/csv\r\n\r\nstudy_uid,label\n1.2.3,positive\n\r\n--{edge}--\r\n"
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}

    answer = oskar._request("POST", "/labels", body.encode(), headers)

    assert answer.status == 200
    assert "1 labels for fistula were kept. 1 of them are of studies" in answer.data.decode()
