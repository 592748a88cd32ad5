"""For Orthanc's Python plugin: as forward-stable-studies.lua, for studies that hold MR images only.

orthanc.json:  "DicomModalities": {"monro": ["MONRO", "listener.hospital", 11112]},
               "PythonScript": "/etc/orthanc/forward_stable_studies.py"
"""

import json
from typing import Any

import orthanc  # type: ignore[import-not-found,unused-ignore]

WANTED = "MR"


def on_change(change: Any, level: Any, resource: str) -> None:
    """Send a study that became stable, if it holds what monro looks at."""
    if change != orthanc.ChangeType.STABLE_STUDY:
        return
    asked = f"/studies/{resource}/series?expand"
    series = json.loads(orthanc.RestApiGet(asked))
    if WANTED not in {each["MainDicomTags"].get("Modality") for each in series}:
        return
    order = {"Resources": [resource], "Synchronous": False}
    orthanc.RestApiPost("/modalities/monro/store", json.dumps(order))


orthanc.RegisterOnChangeCallback(on_change)
