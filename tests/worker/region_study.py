"""A small axial T2 study, and a bundle of untrained members that look at its regions."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from pydicom import dcmread
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors

from listener.entries import Instance, Job, digest_of
from trainer.infection import draw_infection
from trainer.phantom_study import Visit, write_axial
from trainer.phantom_t2 import render_t2
from worker import nets
from worker.analyses import open_analysis
from worker.bundle import (
    NOT_SUGGESTED,
    REFERENCE,
    SUGGESTED,
    MeasuredWith,
    Network,
    RegionDescription,
    RegionsDescription,
    Selected,
    load_bundle,
    reference_keys,
)
from worker.crops import CropRecipe
from worker.occlusion import Effort
from worker.pipeline import Commission, Estimate, estimate, judge
from worker.radiomics.config import Radiomics
from worker.radiomics.extraction import LIBRARY, VERSION
from worker.radiomics.specimen import measure
from worker.results.outcome import Judged, Options
from worker.results.uids import Lineage
from worker.seal import METADATA, sha256, write_manifest
from worker.stopwatch import Stopwatch

PIXELS = 128
RADIOMICS = Radiomics(log_sigmas_mm=(1.0,), families=("firstorder",))
RECIPE = CropRecipe(side=64, fewest_pixels=30, radiomics=RADIOMICS)
NETWORK = Network(
    "compact-mobilenetv3-aspp-radfusion",
    {"width": 0.25, "aspp_rates": [1], "aspp_channels": 8, "radiomics": 4},
)
WEIGHED = ("original_firstorder_Mean", "log-sigma-1-0-mm-3D_firstorder_Variance")
REGIONS = ("ventricles", "sublentiform")


def write_region_bundle(folder: Path, *, features: tuple[str, ...] = WEIGHED) -> Path:
    """Two untrained members for each region."""
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "LICENSE").write_text("Apache-2.0")
    arrays, regions = {}, {}
    for region in REGIONS:
        files = []
        for number, key in enumerate(reference_keys(2, region)):
            torch.manual_seed(number)
            network = nets.build_planar(NETWORK.name, **NETWORK.config)
            for _ in range(10):  # lively batch statistics
                network(torch.rand(4, 3, RECIPE.side, RECIPE.side), torch.randn(4, 4))
            name = f"models/{region}_fold_{number}.safetensors"
            weights = {key: each.contiguous() for key, each in network.state_dict().items()}
            save_tensors(weights, folder / name)
            files.append(name)
            arrays[f"{key}.mean"] = np.zeros(128)
            arrays[f"{key}.precision"] = np.eye(128)
            arrays[f"{key}.distances"] = np.linspace(0, 100, 50)
        scale = tuple(1.0 for _ in features)
        selected = Selected(features, tuple(0.0 for _ in features), scale)
        regions[region] = RegionDescription(tuple(files), (1.0, 2.0), (selected, selected))
    save_arrays(arrays, folder / REFERENCE)
    description = RegionsDescription(
        analysis="infection",
        name="toy-regions",
        network=NETWORK,
        threshold_low=0.3,
        threshold_high=0.7,
        ood_limit=97.0,
        conformal={SUGGESTED: 0.6, NOT_SUGGESTED: 0.6},
        statement="Untrained: no clinical meaning.",
        intended_input="axial T2 of the head",
        recipe=RECIPE,
        regions=regions,
        decisive="sublentiform",
        measured_with=measured_with(features),
    )
    told = TypeAdapter(RegionsDescription).dump_python(description, mode="json")
    (folder / METADATA).write_text(json.dumps({"version": "1.0.0", "monro": told}))
    write_manifest(folder)
    return folder


def measured_with(features: tuple[str, ...]) -> MeasuredWith:
    """As this installation measures."""
    found = measure(RADIOMICS)
    specimen = {name: found[name] for name in features}
    return MeasuredWith(LIBRARY, VERSION, RADIOMICS.config_hash, specimen)


@pytest.fixture(scope="session")
def region_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bundle lies."""
    return write_region_bundle(tmp_path_factory.mktemp("bundle") / "toy-regions")


@pytest.fixture(scope="session")
def analysis(region_bundle: Path) -> Any:
    """The bundle, warm."""
    return open_analysis(load_bundle(region_bundle))


@pytest.fixture(scope="session")
def phantom() -> Any:
    """An axial T2 with known regions."""
    return render_t2(draw_infection(5, positive=True), PIXELS)


@pytest.fixture(scope="session")
def study(phantom: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same as DICOM files."""
    visit = Visit(sex="F", age_years=40, institution="A")
    return write_axial(phantom, visit, tmp_path_factory.mktemp("t2"))


@pytest.fixture(scope="session")
def estimated_regions(analysis: Any, study: list[Path]) -> Estimate:
    """The score of the study as it came."""
    return estimate(commission_of(study), analysis, Stopwatch())


@pytest.fixture(scope="session")
def judged_regions(estimated_regions: Estimate, study: list[Path]) -> Judged:
    """The same with its map."""
    return judged_from(estimated_regions, commission_of(study))


def judged_from(score: Estimate, asked: Commission) -> Judged:
    """Make the map of a score."""
    effort = Effort(60.0, 2**30, torch.float32)
    return judge(asked, score, Stopwatch(), lambda _done, _all: None, effort)


def commission_of(paths: list[Path], drawn: Path | None = None) -> Commission:
    """A job for a series, and for what was drawn on it."""
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    uid, series = headers[0].StudyInstanceUID, headers[0].SeriesInstanceUID
    inputs = [
        Instance(header.SOPInstanceUID, "", series, path, "used", 0.0)
        for header, path in zip(headers, paths, strict=True)
    ]
    if drawn is not None:
        inputs.append(Instance("drawn", sha256(drawn.read_bytes()), "1.2.9", drawn, "used", 0.0))
    created = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
    digest = digest_of(inputs)
    job = Job("j", uid, "infection", series, digest, "w", "1", created, 1, "l", tuple(inputs), None)
    lineage = Lineage("test", uid, "infection", digest, "toy 1.0.0", "w", "")
    return Commission(job, lineage, Options())
