"""What cannot be read at present says nothing about the study."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from listener.entries import Instance, Job
from tests.fuzz import images
from worker.limits import Limits
from worker.pipeline import Commission, estimate, read_headers, refuse
from worker.quality import Reason, UnusableStudy
from worker.results.outcome import Options
from worker.stopwatch import Stopwatch


def commission_for(path: Path, series_uid: str | None) -> Commission:
    """A job for a series, or for want of one, whose one instance lies at a path."""
    inputs = (Instance("1.2.1.1", "", "1.2.1", path, "used", 0.0),)
    job = Job("j", "1.2", "fistula", series_uid, "d", "w", "1", 0.0, 1, "l", inputs, None)
    return Commission(job, None, Options())


def judged(commission: Commission) -> None:
    estimate(commission, SimpleNamespace(bundle=None), Stopwatch())


@pytest.mark.parametrize("series_uid", ["1.2.1", None])
def test_a_file_that_is_not_to_be_had_is_neither_judged_nor_refused(tmp_path, series_uid):
    commission = commission_for(tmp_path / "absent.dcm", series_uid)
    with pytest.raises(FileNotFoundError):
        judged(commission)
    with pytest.raises(FileNotFoundError):
        refuse(commission, UnusableStudy(Reason.NO_SERIES, "nothing", "something"))


def test_a_file_that_is_no_dicom_is_refused_and_addresses_nothing(tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(b"\0" * 1000)
    commission = commission_for(path, "1.2.1")
    with pytest.raises(UnusableStudy) as refusal:
        judged(commission)
    assert refusal.value.reason is Reason.UNREADABLE
    assert refuse(commission, refusal.value) is None


@pytest.mark.filterwarnings("ignore")  # pydicom's, about the UIDs we plant
@pytest.mark.parametrize("tag", [0x00080016, 0x00080018, 0x0020000D, 0x0020000E])
@pytest.mark.parametrize("value", [None, b"not a UID ", b"1.2\\1.3 "])
def test_a_refusal_is_addressed_by_headers_that_have_names(tmp_path, tag, value):
    nameless, named = images.sound(1), images.sound(2)
    nameless.pop(tag)
    if value is not None:
        nameless[tag] = (b"UI", value)
    paths = [tmp_path / "1.dcm", tmp_path / "2.dcm"]
    for path, elements in zip(paths, (nameless, named), strict=True):
        path.write_bytes(images.file(elements))

    assert [each.SOPInstanceUID for each in read_headers(paths)] == ["1.2.3.4.2"]


def test_a_series_beyond_the_limits_is_refused_before_it_is_read(tmp_path):
    elements = images.sound(1)
    paths = [tmp_path / f"{number:02}.dcm" for number in range(50)]
    for path in paths:
        path.write_bytes(images.file(elements))
    inputs = tuple(Instance(path.stem, "", "1.2.3.1", path, "used", 0.0) for path in paths)
    job = Job("j", "1.2.3", "fistula", "1.2.3.1", "d", "w", "1", 0.0, 1, "l", inputs, None)

    with pytest.raises(UnusableStudy) as refusal:
        estimate(
            Commission(job, None, Options()),
            SimpleNamespace(bundle=None),
            Stopwatch(),
            Limits(slices=49),
        )
    assert (refusal.value.reason, refusal.value.found) == (Reason.TOO_LARGE, "50 files")
