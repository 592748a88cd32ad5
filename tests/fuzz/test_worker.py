"""The short form of `make fuzz` against a worker's reading, and headers that hypothesis shrinks."""

import warnings
from pathlib import Path

import pydicom.config
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listener.errors import BadAttribute
from listener.selection import ANALYSES, select
from listener.series import read_series_facts
from tests.fuzz import images
from tests.fuzz.bench import Findings, judge, subject
from worker.quality import UnusableStudy, check_headers
from worker.volume import read_volume

INPUTS = 30


@pytest.fixture(autouse=True)
def _as_a_worker_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)


def test_a_worker_refuses_with_a_reason_in_bounded_memory_and_time(tmp_path: Path) -> None:
    findings = Findings()
    judge(range(INPUTS), 0, tmp_path, findings)

    assert findings.faults == []
    assert findings.inputs == INPUTS
    assert findings.answers["REASON-UNREADABLE"] > 0


def test_a_sound_series_is_read_in_every_transfer_syntax(tmp_path: Path) -> None:
    with subject() as reader:
        for syntax in images.SYNTAXES:
            place = tmp_path / syntax
            place.mkdir()
            for at, content in enumerate(images.head_in(syntax)):
                (place / f"{at:03}.dcm").write_bytes(content)
            told = reader.ask(place)
            assert told is not None
            assert (told["said"], told["fault"]) == ("read", "")


numbers = st.one_of(
    st.integers(-(2**31), 2**32).map(str),
    st.floats().map(str),
    st.text("0123456789+-.eE\\ ", max_size=40),
    st.binary(max_size=20).map(lambda data: data.decode("latin-1")),
)
texts = st.dictionaries(st.sampled_from(images.WRITTEN), numbers, max_size=4)
counts = st.dictionaries(st.sampled_from(images.COUNTED), st.integers(0, 65535), max_size=3)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=texts, counts=counts)
def test_whatever_a_header_says_the_series_is_read_or_refused(
    tmp_path: Path, texts: dict[int, str], counts: dict[int, int]
) -> None:
    paths = []
    for number in range(1, 4):
        elements = images.sound(number)
        for tag, text in texts.items():
            value = text.encode("latin-1")
            elements[tag] = (b"DS", value + b" " * (len(value) % 2))
        for tag, count in counts.items():
            elements[tag] = (b"US", images.short(count))
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(images.file(elements))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in (facts_of, read_volume):
            try:
                step(paths)
            except (BadAttribute, UnusableStudy):
                continue


def facts_of(paths: list[Path]) -> None:
    facts = read_series_facts(paths[0], len(paths))
    for analysis in ANALYSES:
        select(analysis, [facts])
    check_headers(facts, "fistula")
