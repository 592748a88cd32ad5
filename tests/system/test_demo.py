"""`make demo` as a newcomer runs it, and Ctrl-C as a newcomer presses it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom

DEMO = (sys.executable, "-m", "deploy.local", "demo")
REPOSITORY = Path(__file__).parents[2]


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that work below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # ended meanwhile, or not ours
    return found


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_demo_tells_heads_with_signs_from_those_without(
    tmp_path: Path, assert_valid: Callable[[Sequence[Path], Sequence[Path]], None]
) -> None:
    demo = start(tmp_path)
    output, _ = demo.communicate(timeout=280)

    assert demo.returncode == 0, output
    assert re.search(r"^demo: PASS 2 studies answered by 4 analyses", output, re.MULTILINE)
    for analysis, finding, other in (
        ("fistula", "intracranial hypotension", "CNS infection"),
        ("infection", "CNS infection", "intracranial hypotension"),
    ):
        signs, none = (
            float(re.search(rf"signs of {title}; {analysis}: ([\d.]+) %", output).group(1))  # type: ignore[union-attr]
            for title in (finding, other)
        )
        assert signs > none
    assert "no clinical meaning" in output
    (page,) = tmp_path.glob("monro-demo-*/results.html")
    assert page.read_text().count("data:image/png") >= 2
    for study in tmp_path.glob("monro-demo-*/archive/*"):
        results = sorted(study.glob("*/*.dcm"))
        modalities = Counter(
            pydicom.dcmread(path, stop_before_pixels=True).Modality for path in results
        )
        assert modalities == {"SR": 4, "OT": 92 + 24, "SEG": 1}
        assert_valid(results, [])
    assert processes_of(tmp_path) == []


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    demo = start(tmp_path)
    deadline = time.monotonic() + 120
    while len(processes_of(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(processes_of(tmp_path)) >= 3
    demo.send_signal(signal.SIGINT)
    try:
        output, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()

    assert demo.returncode == 1
    assert "demo: FAIL stopped by Ctrl-C" in output
    assert processes_of(tmp_path) == []


def test_a_folder_without_dicom_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    demo = start(tmp_path, "--study", str(empty))
    output, _ = demo.communicate(timeout=120)

    assert demo.returncode == 1
    assert "holds no DICOM file" in output
