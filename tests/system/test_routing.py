"""Orthanc passes studies on by the scripts of deploy/orthanc; the one in Lua is used everywhere."""

from pathlib import Path
from typing import Any

from pydicom import Dataset

from tests.system.conftest import REPOSITORY, edited_copy
from tests.tools import is_absent
from trainer.phantom import OVERT, draw_case, render
from trainer.phantom_study import write_study

PYTHON_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancPython.so")
SLICES = 4


def test_the_python_plugin_passes_on_studies_that_hold_mr_images_and_no_others(
    a_hospital: Any, tmp_path: Path
) -> None:
    if not PYTHON_PLUGIN.exists():
        is_absent("Orthanc's plugin for Python", "orthanc-python")
    script = REPOSITORY / "deploy" / "orthanc" / "forward_stable_studies.py"
    changes = {"LuaScripts": [], "Plugins": [str(PYTHON_PLUGIN)], "PythonScript": str(script)}
    drawn = write_study(render(draw_case(7, positive=True, spectrum=OVERT)), tmp_path / "drawn")
    other, other_files = edited_copy(drawn[:SLICES], tmp_path / "ct", _call_it_ct)
    wanted, files = edited_copy(drawn[:SLICES], tmp_path / "mr")
    with a_hospital(orthanc_changes=changes) as hospital:
        hospital.send(other_files)
        hospital.send(files)
        hospital.await_that(
            lambda: len(hospital.stack.ledger.instances_of(wanted)) == SLICES, 60, wanted
        )
        # It was stable before the other was.
        assert hospital.stack.ledger.study(other) is None


def _call_it_ct(dataset: Dataset) -> None:
    dataset.Modality = "CT"
