"""What the API answers is what its OpenAPI document promises: status, kind and form."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from listener.console.gate.sessions import Sessions
from listener.rollout import promote
from tests.listener.console.conftest import BUNDLE, Browser, House, a_head
from tests.listener.console.test_rollouts import NEWER, a_worker_holds, judge_by_both

People = Callable[..., Browser]

NO_JOB = "0" * 36


def test_every_answer_is_as_the_document_promises(console: People, house: House) -> None:
    refused = house.receive(*a_head("ROE^RICHARD", "P-91"))
    (job_id,) = house.plan()
    house.refuse(job_id, "Too few slices.", "REASON-TOO-FEW-SLICES")
    study_uid, job_id = house.report("DOE^JANE", "P-90")
    house.ledger.register_bundle(NEWER)
    judge_by_both(house)
    promote(house.ledger, "fistula", NEWER.edition, "ann")  # to be rolled back
    a_worker_holds(house, BUNDLE, NEWER)
    oskar, vera, nobody = console("oskar"), console("vera"), console(None)
    document = oskar.json("/api/openapi.json")
    sop_uid = oskar.json(f"/api/studies/{study_uid}/jobs/{job_id}/results")[0]["sop_uid"]
    right = {
        "study_uid": study_uid, "job_id": job_id, "sop_uid": sop_uid, "number": "1",
        "layer": "heat", "analysis": "fistula", "weights": NEWER.weights_sha256, "version": "2.0.0",
    }  # fmt: skip
    wrong = right | {"study_uid": "1.2.3", "job_id": NO_JOB, "weights": "c" * 64, "sop_uid": "1.2"}
    senseless = dict.fromkeys(right, "x" * 200)
    queries = {
        "/api/studies": "state=refused&limit=5",
        "/api/studies/{study_uid}/jobs/{job_id}/slices/pack": "first=1&count=2",
        "/api/bundles/{analysis}/{weights}/{version}/role": "role=shadow&reason=old",
    }
    bodies = {
        "/api/search": {"text": "jane"},
        "/api/rules": {"study_uid": study_uid},
        "/api/labels": {
            "analysis": "fistula", "text": f"study_uid,label\n{refused},positive\n",
        },
    }  # fmt: skip

    seen: set[tuple[str, int]] = set()
    for path, methods in document["paths"].items():
        for method in methods:
            query = queries.get(path, "")
            body = bodies.get(path, {})
            for who, values, asked, sent in (
                (oskar, right, query, body),
                (nobody, right, query, body),
                (vera, right, query, body),
                (oskar, wrong, query, body),
                (oskar, senseless, query, body),
                (oskar, right, "limit=x&since=x&role=x&first=x", {"text": 1, "study_uid": [1]}),
                (oskar, right, query, "[" * 100_000),
            ):
                place = f"{path.format(**values)}?{asked}"
                answer = ask(who, method, place, sent)
                assert_promised(document, method, path, answer)
                seen.add((path, answer.status))

    assert {path for path, status in seen if status == 200} == set(document["paths"])
    assert {status for _, status in seen} >= {200, 400, 401, 403, 404, 409, 422}


def ask(who: Browser, method: str, place: str, body: Any) -> Any:
    if method == "get":
        return who._send("GET", place)
    if isinstance(body, str):
        headers = {"X-CSRF-Token": who.csrf, "Content-Type": "application/json"}
        return who._request("POST", place, body.encode(), headers)
    return who.post_json(place, body)


def assert_promised(document: Any, method: str, path: str, answer: Any) -> None:
    promised = document["paths"][path][method]["responses"]
    said = f"{method} {path}: {answer.status} {answer.data[:200]}"
    assert str(answer.status) in promised, said
    content = promised[str(answer.status)]["content"]
    kind = answer.headers["Content-Type"].partition(";")[0]
    assert kind in content, said
    if kind == "application/json":
        form = {**content[kind]["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(form).validate(json.loads(answer.data))


def test_programs_and_browsers_are_let_in_as_the_document_says(
    console: People, house: House
) -> None:
    document = console("vera").json("/api/openapi.json")
    schemes = document["components"]["securitySchemes"]

    assert schemes["token"]["scheme"] == "bearer"
    for cookie in ("monro", "__Host-monro"):
        assert (schemes[cookie]["name"], schemes[cookie]["in"]) == (cookie, "cookie")
    either = [{"token": []}, {"monro": []}, {"__Host-monro": []}]
    for path, methods in document["paths"].items():
        for told in methods.values():
            assert told["security"] == either, path
            assert "HTTPValidationError" not in json.dumps(told["responses"]), path
    token = Sessions.of(house.ledger, house.settings).issue("vera", 1)
    program = console(None)
    headers = {"Authorization": f"Bearer {token}"}
    assert program._request("GET", "/api/studies", None, headers).status == 200


def test_whatever_goes_wrong_is_told_in_the_same_form(
    console: People, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("PLANTED")

    vera = console("vera")
    document = vera.json("/api/openapi.json")
    monkeypatch.setattr("listener.console.api.worklist", broken)

    answer = vera._send("GET", "/api/studies")

    assert answer.status == 500
    assert_promised(document, "get", "/api/studies", answer)
    assert b"PLANTED" not in answer.data
