"""The console as people and programs meet it, over HTTP and behind the gate."""

import base64
import html
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from lxml import etree

from listener.console import trail as trail_module
from listener.console.slices import LAYERS
from listener.entries import Pending
from tests.listener.audit.reading import Message
from tests.listener.console.conftest import (
    BUNDLE,
    Browser,
    House,
    a_head,
    a_localizer,
    a_study_of,
    opened,
)

People = Callable[..., Browser]

PAGES = ("/", "/queue", "/bundles", "/rules", "/settings", "/health", "/api")


def text_of(page: str) -> str:
    """A page without its markup."""
    return html.unescape(" ".join(re.sub("<[^>]*>", " ", page).split()))


def test_nobody_sees_anything_without_signing_in(console: People, house: House) -> None:
    study_uid, job_id = house.report()
    nobody = console(None)

    for path in (*PAGES, f"/studies/{study_uid}", f"/studies/{study_uid}/jobs/{job_id}/slices"):
        if path != "/api":
            assert nobody.status(path) == 303, path
    picture = f"/api/studies/{study_uid}/jobs/{job_id}/slices/1/anatomy.png"
    for path in ("/api/studies", f"/api/studies/{study_uid}", picture, "/api/openapi.json"):
        assert nobody.status(path) == 401, path


def test_every_page_says_research_use_only_and_loads_nothing_of_others(
    console: People, house: House
) -> None:
    study_uid, job_id = house.report()
    vera = console("vera")

    for path in (*PAGES, f"/studies/{study_uid}", f"/studies/{study_uid}/jobs/{job_id}/slices"):
        page = vera.get(path)
        assert "Research use only" in page, path
        assert not re.search(r'(src|href|action)="(https?:)?//', page), path
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", page), path
        assert page.count("<h1") == 1


def test_the_worklist_tells_patient_state_result_and_delivery(
    console: People, house: House
) -> None:
    study_uid, _ = house.report("DOE^JANE", "P-1")

    page = text_of(console().get("/"))

    assert f"DOE, JANE P-1 {study_uid}" in page
    assert "fistula: reported" in page
    assert "85.0 % suggested" in page
    assert "3 on their way" in page

    sent: list[Pending] = []
    while due := house.ledger.due("pacs"):  # phase by phase
        for pending in due:
            house.ledger.note_delivery(pending, "pacs", "SENT", "Success")
        sent += due
    assert "3 sent, not confirmed yet" in text_of(console().get("/"))
    for pending in sent:
        house.ledger.note_delivery(pending, "pacs", "CONFIRMED", "Success")
    assert "not confirmed yet" not in text_of(console().get("/"))


def test_a_study_shows_what_came_in_and_where_it_went(console: People, house: House) -> None:
    study_uid, _ = house.report()

    page = text_of(console().get(f"/studies/{study_uid}"))

    assert "4 instances received = 3 used + 1 not wanted" in page
    assert "3: t1_mprage_sag +KM" in page
    assert "not wanted: a wanted series is not a localizer" in page
    assert "chosen: no other series of the study is preferred to it" in page
    assert "yes must: the series is T1-weighted" in page
    assert "no prefer: the series is long enough for a whole head (0 of 30 points)" in page
    assert "standard deviation 5.0 percentage points" in page
    assert (
        "Of 100 patients with a score between 80 and 90 % in the validation cohort, about 85"
        in page
    )
    assert "had a CSF-venous fistula" in page
    assert "Quality of the input: unusual noise" in page
    assert "mean intensity 0.28, as usual: 80 % of its cohort had 0.25 to 0.32" in page
    assert "noise 0.1, lower than usual: 90 % of its cohort had 0.2 to 0.3" in page
    assert "volume 3; the bundle does not say what is usual" in page
    assert "{'mean" not in page
    assert "A finding of tests: suggested by <the> AI model." in page
    assert "Slice 2 of 2, the one that the map marks most" in page
    assert "Times: 12.5 s of work" in page
    assert re.search(r"pacs fistula overlay pending 2 0", page)
    assert "job queued" in page


def test_three_pictures_show_image_map_and_overlay_undistorted(
    console: People, house: House
) -> None:
    study_uid, job_id = house.report()
    vera = console()

    page = vera.get(f"/studies/{study_uid}")
    figure = page[page.index('<figure class="three">') : page.index("</figure>")]

    assert re.findall(r"slices/(\d+)/(\w+)\.png", figure) == [
        ("2", "anatomy"), ("2", "heat"), ("2", "anatomy"), ("2", "heat"),
    ]  # fmt: skip
    assert 'viewBox="0 0 16.0 6.0"' in figure  # 8 columns of 2 mm, 6 rows of 1 mm
    for number, layer, value in ((1, "anatomy", 100), (2, "heat", 201)):
        content = vera.data(f"/api/studies/{study_uid}/jobs/{job_id}/slices/{number}/{layer}.png")
        assert (
            content
            == (house.spool.root / "results")
            .glob(f"**/overlay-{number - 1:04d}.{layer}.png")
            .__next__()
            .read_bytes()
        ), value


def test_pictures_of_neighbours_come_together(console: People, house: House) -> None:
    study_uid, job_id = house.report()
    vera, base = console(), f"/api/studies/{study_uid}/jobs/{job_id}/slices"

    content = vera.data(f"{base}/pack?first=1&count=8")

    expected = [vera.data(f"{base}/{number}/{layer}.png") for number in (1, 2) for layer in LAYERS]
    assert content == b"".join(len(each).to_bytes(4, "big") + each for each in expected)
    assert vera.status(f"{base}/pack?first=3&count=8") == 404
    assert vera.status(f"{base}/pack?first=1&count=17") == 422


def test_pictures_of_other_jobs_and_places_are_not_given_out(console: People, house: House) -> None:
    study_uid, job_id = house.report("DOE^JANE", "P-1")
    other_uid, _ = house.report("ROE^RICHARD", "P-2")
    vera = console()
    picture = "slices/1/anatomy.png"

    assert vera.status(f"/api/studies/{study_uid}/jobs/{job_id}/{picture}") == 200
    assert vera.status(f"/api/studies/{other_uid}/jobs/{job_id}/{picture}") == 404
    assert vera.status(f"/api/studies/{study_uid}/jobs/{job_id}/slices/3/anatomy.png") == 404
    assert vera.status(f"/api/studies/{study_uid}/jobs/{job_id}/slices/1/map.png") == 422
    assert vera.status(f"/api/studies/..%2F..%2F/jobs/{job_id}/{picture}") == 404
    anatomy = next((house.spool.root / "results" / study_uid).glob("**/overlay-0000.anatomy.png"))
    secret = house.spool.root / "secret.png"
    secret.write_bytes(anatomy.read_bytes())
    anatomy.unlink()
    anatomy.symlink_to(secret)
    assert vera.status(f"/api/studies/{study_uid}/jobs/{job_id}/{picture}") == 404


def test_the_viewer_works_without_script(console: People, house: House) -> None:
    study_uid, job_id = house.report()

    page = console().get(f"/studies/{study_uid}/jobs/{job_id}/slices?slice=1&opacity=40")

    assert "Slice 1 of 2, 10.0 % marked" in text_of(page)
    assert 'opacity="0.4"' in page
    assert 'href="?slice=2&amp;opacity=40" rel="next"' in page


def test_a_refusal_shows_its_reason_and_the_next_step(console: People, house: House) -> None:
    study_uid = house.receive(*a_head("DOE^JANE", "P-3"))
    (job_id,) = house.plan()
    house.refuse(job_id, "Too few slices for a whole head: found 3.", "REASON-TOO-FEW-SLICES")

    page = text_of(console().get(f"/studies/{study_uid}"))

    assert "Too few slices for a whole head: found 3." in page
    assert "Code REASON-TOO-FEW-SLICES. Next step: send what is needed" in page


def test_looking_at_a_study_is_in_the_audit_trail_with_the_visitors_name(
    console: People, house: House
) -> None:
    study_uid, _ = house.report()
    console("vera").get(f"/studies/{study_uid}")
    oskar = console("oskar")
    trail = house.settings.spool / "audit" / "audit.log"
    deadline = time.monotonic() + 5
    while study_uid not in trail.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)

    (line,) = [each for each in trail.read_text().splitlines() if study_uid in each]
    assert 'UserID="vera"' in line
    assert "110103" in line
    page = text_of(oskar.get(f"/studies/{study_uid}/audit"))
    assert "DICOM Instances Accessed success vera at 127.0.0.1" in page


def test_refreshing_a_fragment_is_no_second_look(console: People, house: House) -> None:
    study_uid, _ = house.report()
    vera = console("vera")
    vera.get(f"/studies/{study_uid}")
    vera.get(f"/fragment/studies/{study_uid}")
    time.sleep(0.5)

    trail = house.settings.spool / "audit" / "audit.log"
    assert trail.read_text().count(study_uid) == 1


@pytest.mark.parametrize("path", ["/api/studies/{}/jobs/{}/documents", "/fragment/studies/{}"])
def test_whoever_reads_a_study_past_its_page_is_in_the_audit_trail_once(
    console: People, house: House, path: str
) -> None:
    study_uid, job_id = house.report()
    vera = console("vera")
    for _ in range(3):
        vera.get(path.format(study_uid, job_id))
    time.sleep(0.5)

    (line,) = [
        each
        for each in (house.settings.spool / "audit" / "audit.log").read_text().splitlines()
        if study_uid in each
    ]
    assert 'UserID="vera"' in line


def test_who_reads_the_worklist_or_searches_for_patients_is_in_the_audit_trail(
    console: People, house: House
) -> None:
    house.report("DOE^JANE", "P-1")
    vera = console("vera")
    for _ in range(3):
        vera.get("/")
        vera.get("/api/studies")
    vera.post("/search", text="jane")
    time.sleep(0.5)

    lines = (house.settings.spool / "audit" / "audit.log").read_text().splitlines()
    queries = [each for each in map(Message, lines) if each.event == "110112"]
    assert len(queries) == 2, "one look at the list, one search"
    assert all(b'UserID="vera"' in etree.tostring(each.root) for each in queries)
    assert b"jane" not in base64.b64decode(queries[1].root.findtext(".//ParticipantObjectQuery"))


def test_viewers_change_nothing_and_take_no_files_along(console: People, house: House) -> None:
    study_uid, job_id = house.report()
    vera = console("vera")
    page = vera.get(f"/studies/{study_uid}")

    assert "<form" not in page[page.index("<main") :]
    assert vera.post(f"/studies/{study_uid}/retry").status == 403
    assert vera.post(f"/studies/{study_uid}/cancel").status == 403
    for path in (
        f"/studies/{study_uid}/audit",
        f"/studies/{study_uid}/jobs/{job_id}/results",
        f"/api/studies/{study_uid}/jobs/{job_id}/results",
        f"/api/studies/{study_uid}/audit",
    ):
        assert vera.status(path) == 403, path


def test_operators_take_result_files_along(console: People, house: House) -> None:
    study_uid, job_id = house.report()
    oskar = console("oskar")

    listed = oskar.json(f"/api/studies/{study_uid}/jobs/{job_id}/results")
    summary = next(each for each in listed if each["kind"] == "summary")

    page = oskar.get(f"/studies/{study_uid}/jobs/{job_id}/results")
    path = f"/api/studies/{study_uid}/jobs/{job_id}/results/{summary['sop_uid']}.dcm"
    assert path in page
    assert oskar.data(path)[128:132] == b"DICM"


def test_a_parked_delivery_is_sent_again_to_that_destination_only(
    console: People, house: House
) -> None:
    house.ledger.set_destinations(["pacs", "archive"])
    study_uid, _ = house.report()
    for destination in ("pacs", "archive"):
        for pending in house.ledger.due(destination):
            house.ledger.note_delivery(pending, destination, "PARKED", "rejected for good")
    oskar = console("oskar")
    assert "2 in trouble" not in text_of(oskar.get("/?state=failed"))
    assert "4 in trouble" in text_of(oskar.get("/?trouble=true"))

    answer = oskar.post(f"/studies/{study_uid}/retry", destination="pacs")

    assert answer.status == 303
    page = text_of(oskar.get(answer.headers["Location"].partition("#")[0]))
    told = "Tried again: 0 jobs, 2 parked result objects, and 1 that waited for the next attempt."
    assert told in page
    by_program = oskar.post_json(f"/api/studies/{study_uid}/retry?destination=pacs", {})
    assert json.loads(by_program.data) == {"jobs": 0, "parked": 0, "hurried": 3}
    again = oskar.post(f"/studies/{study_uid}/retry", destination="elsewhere")
    assert "There was nothing to be tried again" in oskar.get(again.headers["Location"])
    states = {
        (each["destination"], each["kind"]): each["state"]
        for each in house.ledger.study(study_uid)["deliveries"]  # type: ignore[index]
    }
    assert states["pacs", "overlay"] == "PENDING"
    assert states["archive", "overlay"] == "PARKED"
    events = house.ledger.study(study_uid)["events"]  # type: ignore[index]
    assert events[-3]["detail"] == "0 job(s), 3 deliveries to pacs"
    time.sleep(0.5)
    trail = (house.settings.spool / "audit" / "audit.log").read_text()
    assert 'UserID="oskar"' in trail
    assert "110132" in trail


def test_a_waiting_job_is_cancelled(console: People, house: House) -> None:
    study_uid = house.receive(*a_head("DOE^JANE", "P-4"))
    house.plan()
    oskar = console("oskar")
    assert "Cancel what waits or runs" in oskar.get(f"/studies/{study_uid}")

    oskar.post(f"/studies/{study_uid}/cancel")

    assert "fistula cancelled" in text_of(oskar.get(f"/studies/{study_uid}"))


def test_patients_are_found_by_name_and_id_and_the_name_is_in_no_address(
    console: People, house: House
) -> None:
    jane, _ = house.report("DOE^JANE", "P-1")
    richard, _ = house.report("MÜLLER^RICHARD", "P-22")
    vera = console("vera")
    deadline = time.monotonic() + 10
    while (
        "The names of all studies are known" not in text_of(vera.get("/"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)

    for text, found, others in (
        ("jane doe", jane, richard),
        ("muller", richard, jane),
        ("p-22", richard, jane),
    ):
        answer = vera.post("/search", text=text)
        assert answer.status == 200
        assert found in answer.data.decode()
        assert others not in answer.data.decode()
    by_uid = vera.post("/search", text=jane[:-1])
    assert by_uid.status == 200
    assert jane in by_uid.data.decode()
    assert richard not in by_uid.data.decode()
    hits = json.loads(vera.post_json("/api/search", {"text": "doe"}).data)
    assert [each["study_uid"] for each in hits["page"]["studies"]] == [jane]


def test_a_patient_id_of_digits_and_dots_is_an_id_and_stands_in_no_address(
    console: People, house: House
) -> None:
    number = "756.1234.5678.97"
    study_uid = house.receive(*a_head("DOE^JANE", number))
    vera = console("vera")
    vera.get("/")  # reads the name

    answer = vera.post("/search", text=number)
    assert answer.status == 200
    assert f'href="/studies/{study_uid}"' in answer.data.decode()
    hits = json.loads(vera.post_json("/api/search", {"text": number}).data)
    assert [each["study_uid"] for each in hits["page"]["studies"]] == [study_uid]
    by_uid = json.loads(vera.post_json("/api/search", {"text": study_uid[:-1]}).data)
    assert [each["study_uid"] for each in by_uid["page"]["studies"]] == [study_uid]
    time.sleep(0.5)
    lines = (house.settings.spool / "audit" / "audit.log").read_text().splitlines()
    assert sum(Message(each).event == "110112" for each in lines) == 4  # one of them: the worklist


def test_a_study_is_told_by_its_examination_and_found_by_its_accession_number(
    console: People, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = {
        "AccessionNumber": "ACC-PLANTED", "StudyDate": "20260301",
        "StudyDescription": "MR head PLANTED",
    }  # fmt: skip
    person = {"PatientBirthDate": "19470229", "PatientSex": "F"}
    study_uid = house.receive(*a_localizer("DOE^JANE", "P-61", **told, **person))
    vera = console("vera")

    listed = text_of(vera.get("/"))
    assert f"DOE, JANE P-61 2026-03-01, MR head PLANTED, ACC-PLANTED {study_uid}" in listed
    page = text_of(vera.get(f"/studies/{study_uid}"))
    assert (
        "Born 1947-02-29 Sex F Study date 2026-03-01 Description MR head PLANTED "
        "Accession number ACC-PLANTED" in page
    )
    assert study_uid in vera.post("/search", text="acc-planted").data.decode()
    (named,) = vera.json("/api/studies")["patients"].values()
    assert (named["state"], named["accession_number"]) == ("known", "ACC-PLANTED")
    assert "PLANTED" not in caplog.text
    assert "1947" not in caplog.text


def test_pages_say_that_nothing_names_the_patient_of_a_purged_study(
    console: People, house: House
) -> None:
    study_uid, _ = house.report("DOE^JANE", "P-62")
    house.purge(study_uid)
    vera = console("vera")

    assert "no file left that names the patient" in text_of(vera.get("/"))
    listed = text_of(vera.get("/"))
    assert "Names of 0 of 1 studies are known so far; a search by name finds these." in listed
    assert "Of 1 no file is left in the spool" in listed
    found = text_of(vera.post("/search", text="jane").data.decode())
    assert "0 studies found. Names of 0 of 1 studies are known so far" in found
    page = text_of(vera.get(f"/studies/{study_uid}"))
    assert "No file of this study is left in the spool, so nothing here names the patient" in page


def test_no_name_is_logged_whatever_goes_wrong(
    console: People, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    study_uid, _ = house.report("PLANTED^NAME", "PLANTED-ID")
    vera = console("vera")
    vera.get("/")
    vera.get(f"/studies/{study_uid}")
    vera.post("/search", text="PLANTED NAME")
    vera.post("/search", text="PLANTED " * 100)
    vera.post("/rules", text="PatientName = PLANTED\nnonsense PLANTED")

    assert "PLANTED" not in caplog.text


def test_a_study_that_is_not_wanted_and_one_that_comes_in_say_so(
    console: People, house: House
) -> None:
    aside = house.receive(*a_localizer("DOE^JANE", "P-6", BodyPartExamined="KNEE"))
    house.plan()
    coming = house.receive(*a_head("DOE^JANE", "P-7"))
    vera = console()

    assert "coming in 3 images so far" in text_of(vera.get(f"/studies/{coming}"))
    for study_uid, seconds in ((coming, 3), (aside, 30)):
        page = vera.get(f"/studies/{study_uid}")
        assert f'data-refresh="/fragment/studies/{study_uid}"' in page
        assert f'data-seconds="{seconds}"' in page, "a later revision would never appear, or late"
    page = text_of(page)
    assert "not wanted No analysis wants anything of it; each series below says why." in page


def test_programs_are_told_whose_a_study_is(console: People, house: House) -> None:
    study_uid, _ = house.report("DOE^JANE", "P-8")
    vera = console("vera")

    told = vera.json(f"/api/studies/{study_uid}/patient")

    assert (told["name"], told["identifier"], told["state"]) == ("DOE^JANE", "P-8", "known")
    assert vera.status("/api/studies/1.2.3.4.5/patient") == 404


def test_a_study_is_listed_as_not_wanted_where_no_analysis_ever_wanted_it(
    console: People, house: House
) -> None:
    aside = house.receive(*a_localizer("DOE^JANE", "P-6", BodyPartExamined="KNEE"))
    wanted = house.receive(*a_head("DOE^JANE", "P-7"))
    house.plan()

    listed = console().get("/?state=aside")

    assert f"/studies/{aside}" in listed
    assert f"/studies/{wanted}" not in listed


def test_pasted_headers_are_judged_rule_by_rule(console: People, house: House) -> None:
    vera = console("vera")
    pasted = """SeriesDescription = t1_mprage_sag +KM
MRAcquisitionType = 3D
ImageOrientationPatient = 0\\1\\0\\0\\0\\-1
SliceThickness = 1
Instances = 176

SeriesDescription = t2_tse_tra
ImageOrientationPatient = 1\\0\\0\\0\\1\\0
"""
    page = text_of(vera.post("/rules", text=pasted).data.decode())
    assert "Takes series 1.2.3.1" in page
    assert "Takes series 1.2.3.2" in page
    assert "yes must: the series is T1-weighted" in page
    assert "yes prefer: the series was acquired with a contrast agent (100 of 100 points)" in page

    answer = vera.post_json("/api/rules", {"text": json.dumps([{"SeriesDescription": "t1 sag"}])})
    fistula = next(
        each for each in json.loads(answer.data)["choices"] if each["analysis"] == "fistula"
    )
    assert fistula["chosen"] == "1.2.3.1"
    wrong = vera.post("/rules", text="SeriesDescription: t1")
    assert wrong.status == 422
    assert "line 1: no equals sign" in wrong.data.decode()
    study_uid, _ = house.report()
    assert "Takes series" in vera.get(f"/rules?study={study_uid}")


def test_bundles_show_their_card_and_no_markup_of_theirs(console: People, house: House) -> None:
    vera = console("vera")

    page = vera.get("/bundles")

    assert "fistula: test-bundle 1.0.0 active" in text_of(page)
    assert "<em>words</em>" in page
    assert "<script>alert" not in page
    assert "80 % to 90 % 20 17 85 %" in text_of(page)


def test_an_evaluation_report_is_shown_in_a_frame_that_may_do_nothing(
    console: People, house: House
) -> None:
    house.ledger.register_bundle(replace(BUNDLE, version="9", weights_sha256="9" * 64,
                                         evaluation=None))  # fmt: skip
    vera, nobody = console("vera"), console(None)
    place = f"/bundles/fistula/{'a' * 64}/1.0.0/evaluation"
    assert f'href="{place}"' in vera.get("/bundles")

    page = vera.get(place)
    assert re.search(f'<iframe [^>]*src="{re.escape(place)}.html" sandbox title="[^"]+"', page)
    for report in (f"{place}.html", f"/api{place}"):
        answer = vera._send("GET", report)
        assert b"An evaluation" in answer.data
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert {"sandbox", "default-src 'none'", "frame-ancestors 'self'"} <= set(policy)
        assert not any(rule.startswith("script-src") for rule in policy)
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
        assert answer.headers["Cache-Control"] == "no-store"
        assert nobody.status(report) in {303, 401}
    assert "sandbox" not in vera._send("GET", place).headers["Content-Security-Policy"]
    for missing in (
        f"/bundles/fistula/{'9' * 64}/9/evaluation",
        f"/bundles/fistula/{'c' * 64}/1/evaluation",
    ):
        for report in (missing, f"{missing}.html", f"/api{missing}"):
            assert vera.status(report) == 404, report


def test_settings_are_shown_without_passwords(house: House) -> None:
    """in_force.py knows every form of them (test_in_force.py)."""
    planted = {
        "broker": "redis://:PLANTED@broker/0",
        "ledger": "postgresql://monro:x PLANTED@db/monro",
    }
    house.settings = house.settings.model_copy(update=planted)
    with opened(house):
        vera = Browser(house.settings.console_port or 0, "vera")
        page, told = text_of(vera.get("/settings")), vera.json("/api/settings")

    assert "MONRO_SITE test-site" in page
    assert "MONRO_LEDGER postgresql://monro:***@db/monro" in page
    assert "PLANTED" not in page
    assert "MONRO_BROKER" in str(told)
    assert "PLANTED" not in str(told)


def test_programs_read_the_rules_and_what_can_be_filtered_by(console: People, house: House) -> None:
    refused = house.receive(*a_head("DOE^JANE", "P-3"))
    (job_id,) = house.plan()
    house.refuse(job_id, "Too few slices.", "REASON-TOO-FEW-SLICES")
    vera = console("vera")

    rules = vera.json("/api/rules")
    page = text_of(vera.get("/rules"))
    assert rules.keys() == {"fistula", "infection"}
    for rule in (each for of_analysis in rules.values() for each in of_analysis):
        assert f"{rule['rule']} {rule['kind']} {rule['points']}".strip() in page
        assert rule["sentence"] in page
    filters = vera.json("/api/filters")
    assert filters["refusals"] == ["REASON-TOO-FEW-SLICES"]
    assert {"refused", "running", "receiving"} <= set(filters["states"])
    for state in filters["states"]:
        assert vera.status(f"/api/studies?state={state}") == 200
    listed = vera.json(f"/api/studies?refusal={filters['refusals'][0]}")["page"]["studies"]
    assert [each["study_uid"] for each in listed] == [refused]


def test_the_api_describes_itself_and_pages_list_it(console: People, house: House) -> None:
    vera = console()
    schema = vera.json("/api/openapi.json")

    assert schema["openapi"].startswith("3.")
    assert "/api/studies/{study_uid}" in schema["paths"]
    assert all(path.startswith("/api/") for path in schema["paths"])
    assert "/api/studies/{study_uid}" in vera.get("/api")


def test_what_is_asked_wrongly_is_refused_without_repeating_it(
    console: People, house: House
) -> None:
    vera = console()

    assert vera.status("/studies/1.2.3") == 404
    assert vera.status("/studies/PLANTED") == 404
    assert vera.status("/?since=PLANTED") == 422
    assert vera.status("/?state=PLANTED") == 422
    assert vera.status("/?before=PLANTED") == 422
    assert vera.status("/static/nothing.css") == 404
    assert b"PLANTED" not in vera.data("/api/studies?since=PLANTED")
    assert b"PLANTED" not in vera.data("/?limit=PLANTED")


def test_days_before_and_after_all_clocks_are_days_like_others(
    console: People, house: House
) -> None:
    study_uid, _ = house.report()
    vera = console("vera")

    for days, is_listed in (
        ("since=0001-01-01&until=9999-12-31", True),
        ("since=9999-12-31", False),
        ("until=0001-01-01", False),
    ):
        assert (study_uid in vera.get(f"/?{days}")) is is_listed, days
        listed = vera.json(f"/api/studies?{days}")["page"]["studies"]
        assert bool(listed) is is_listed, days


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"Instances": 1e400}]', "SOPInstanceUID = x"])
def test_what_cannot_be_read_as_headers_is_refused_and_breaks_nothing(
    console: People, house: House, text: str
) -> None:
    vera = console("vera")

    assert vera.post("/rules", text=text).status == 422
    assert vera.post_json("/api/rules", {"text": text}).status == 422


def test_the_audit_page_says_how_far_back_it_looked(
    console: People, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_uid, _ = house.report()
    oskar = console("oskar")
    oskar.get(f"/studies/{study_uid}")
    time.sleep(0.5)
    trail = house.settings.spool / "audit" / "audit.log"
    line = trail.read_text().splitlines()[-1]
    dates = [f"2026-01-0{day}T00:00:00Z" for day in range(1, 5)]
    lines = [re.sub('(EventDateTime=")[^"]*', rf"\g<1>{date}", line) for date in dates]
    trail.write_text("".join(f"{each}\n" for each in lines).replace(study_uid, "1.2.3"))

    page = text_of(oskar.get(f"/studies/{study_uid}/audit"))
    rotated = "files that were rotated away are not read here."
    assert f"All of it was looked through, from {dates[0]} on; {rotated}" in page
    monkeypatch.setattr(trail_module, "LOOKED_THROUGH_BYTES", 2 * len(line) + 200)
    page = text_of(oskar.get(f"/studies/{study_uid}/audit"))
    assert "Only the last part of it was looked through, from 2026-01-0" in page
    assert f"from {dates[0]}" not in page
    assert rotated in page
    assert oskar.json(f"/api/studies/{study_uid}/audit")["since"] > dates[0]


def test_of_a_purged_study_the_page_tells_what_was_decided_then_and_concludes_nothing(
    console: People, house: House
) -> None:
    study_uid, job_id = house.report("DOE^JANE", "P-63")
    vera, choices = console("vera"), f"/api/studies/{study_uid}/choices"
    before = vera.json(choices)
    assert before["missing"] == ""
    taken = before["choices"][0]["chosen"]
    house.purge(study_uid)

    page = text_of(vera.get(f"/studies/{study_uid}"))
    assert "As decided What each analysis was given" in page
    assert f"fistula {taken} 3 1 As the rules in force now see" in page
    assert "Nothing is said here: its files were removed by policy. What was decided then" in page
    assert "not wanted: a wanted series is not a localizer" in page
    for false in ("Takes nothing", "not looked at", "is refused with a reason"):
        assert false not in page
    told = vera.json(choices)
    assert told["decided"] == before["decided"]
    assert [(each["job_id"], each["series_uid"]) for each in told["decided"]] == [(job_id, taken)]
    assert (told["choices"], told["missing"]) == ([], "its files were removed by policy")
    tried = text_of(vera.get(f"/rules?study={study_uid}"))
    assert "Nothing is said here: its files were removed by policy." in tried
    assert "Takes nothing" not in tried


@pytest.mark.parametrize("by", ["page", "program"])
def test_whoever_tries_rules_on_a_study_is_in_the_audit_trail(
    console: People, house: House, by: str
) -> None:
    study_uid, _ = house.report()
    vera = console("vera")
    if by == "page":
        vera.get(f"/rules?study={study_uid}")
    else:
        assert vera.post_json("/api/rules", {"study_uid": study_uid}).status == 200
    time.sleep(0.5)

    lines = (house.settings.spool / "audit" / "audit.log").read_text().splitlines()
    (message,) = [Message(each) for each in lines if study_uid in each]
    assert message.event == "110103"


def test_a_study_page_survives_files_that_are_gone(console: People, house: House) -> None:
    study_uid, _ = house.report("DOE^JANE", "P-9")
    house.spool.drop_study_results(study_uid)
    for path in (house.spool.root / "studies" / study_uid).glob("**/*.dcm"):
        path.unlink()

    page = text_of(console().get(f"/studies/{study_uid}"))

    assert "its files are not to be had at present" in page
    assert "Nothing is said here: its files are not to be had at present." in page
    assert "Takes nothing" not in page
    assert "The pictures of this job are gone from the spool" in page
    assert a_study_of("P-9") == study_uid
