"""The listener fits a small image: it starts, receives and answers without any numerics.

The static contract is import-linter's. Here the modules are made impossible to import, as in
an environment with only the base dependencies.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

WITHOUT_NUMERICS = """
import sys

ABSENT = {"numpy", "torch", "monai", "scipy", "SimpleITK", "highdicom", "PIL", "sklearn"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""

RECEIVE_ONE = """
from pathlib import Path
from pydicom import dcmread
from pynetdicom import AE
from listener.caller import call
from listener.node import Node
from listener.remote import Entity
from listener.settings import read_settings

settings = read_settings()
with Node(settings) as node:
    entity = AE("SENDER")
    dataset = dcmread(sys.argv[1])
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = call(entity, Entity(ae_title="MONRO", host="127.0.0.1", port=settings.port), None)
    print(hex(association.send_c_store(dataset).Status))
    association.release()
print(sorted(ABSENT & set(sys.modules)))
"""


def test_a_listener_without_numerics_receives_an_instance(
    tmp_path: Path, free_port: int, mr_slice: Dataset
) -> None:
    path = tmp_path / "slice.dcm"
    mr_slice.save_as(path, enforce_file_format=True)
    environment = {
        **os.environ,
        "MONRO_SPOOL": str(tmp_path / "spool"),
        "MONRO_BROKER": "redis://127.0.0.1:1/0",
        "MONRO_SITE": "test",
        "MONRO_OPEN_NODE": "true",
        "MONRO_PORT": str(free_port),
        "MONRO_KEEP_FREE": "0",
        "MONRO_DESTINATIONS": '[{"name":"a","ae_title":"A","host":"127.0.0.1","port":1}]',
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NUMERICS + RECEIVE_ONE, str(path)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip

    assert done.stdout.split() == ["0x0", "[]"], done.stderr


@pytest.mark.parametrize("module", ["numpy", "torch"])
def test_the_modules_are_really_out_of_reach(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{WITHOUT_NUMERICS}\nimport {module}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "ModuleNotFoundError" in done.stderr


def test_who_asks_for_a_table_waits_for_no_server_and_no_broker() -> None:
    heavy = {"celery", "kombu", "redis", "uvicorn", "fastapi", "starlette", "jinja2", "authlib"}
    script = f"import sys, listener.__main__; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == ["[]"], done.stderr
