"""Outcomes to write down, and the validators that judge what was written."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from worker.bundle import SUGGESTED, Member, Network, VolumeBundle
from worker.ensemble import Band, Prediction
from worker.occlusion import OcclusionMap, OcclusionSpec
from worker.preprocess import DEMO_RECIPE
from worker.quality import Reason, UnusableStudy
from worker.results.outcome import Estimated, Judged, NotJudged
from worker.results.result import Encoder, ResultObject
from worker.results.uids import Lineage
from worker.volume import read_volume

STUDY_UID = "1.2.826.0.1.3680043.8.498.1"
CREATED = datetime(2026, 11, 21, 12, 30, 15, tzinfo=UTC)
# An off-centre spot, in RAS mm: right, in front of and above the centre of the head.
SPOT = np.array([24.0, 32.0, 16.0])

PIXELMED_JAR = Path("/usr/share/java/pixelmed.jar")
# Its stylesheets are larger than a current Java allows unless asked. One thread and a quick
# compiler: on a busy machine the defaults make it wait for itself, a hundred times as long.
PIXELMED_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xss64m",
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
)

SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


@dataclass(frozen=True)
class Series:
    """A synthetic head with a bright spot at SPOT, as MR images on disk."""

    paths: tuple[Path, ...]

    @property
    def headers(self) -> tuple[Dataset, ...]:
        return tuple(pydicom.dcmread(path, stop_before_pixels=True) for path in self.paths)


def write_head(
    folder: Path,
    plane: tuple[tuple[float, float, float], tuple[float, float, float]] = SAGITTAL,
    slices: int = 14,
    size: tuple[int, int] = (64, 60),
    spacing: tuple[float, float] = (4.0, 4.0),
    gap_mm: float = 14.0,
) -> Series:
    """Scan the synthetic head in a plane given by its row and column direction (LPS)."""
    row, column = (np.array(direction) / np.linalg.norm(direction) for direction in plane)
    normal = np.cross(row, column)
    across = row * spacing[1]
    down = column * spacing[0]
    paths = []
    for index in range(slices):
        centre = normal * gap_mm * (index - (slices - 1) / 2)
        first = centre - across * (size[1] - 1) / 2 - down * (size[0] - 1) / 2
        image = _image(index, first, row, column, spacing, gap_mm)
        lps = (
            first
            + np.arange(size[0])[:, None, None] * down
            + np.arange(size[1])[None, :, None] * across
        )
        image.Rows, image.Columns = size
        image.PixelData = _head(lps * [-1, -1, 1]).tobytes()
        paths.append(folder / f"{index:03d}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return Series(tuple(paths))


def _head(ras):
    """Signal of the synthetic head at points in RAS mm: an ellipsoid, brighter at the spot."""
    inside = np.linalg.norm(ras / [75, 95, 100], axis=-1) < 1
    near_spot = np.linalg.norm(ras - SPOT, axis=-1) < 9
    return np.where(near_spot, 1000, np.where(inside, 400, 10)).astype(np.uint16)


def _image(index, first, row, column, spacing, gap_mm):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = f"{STUDY_UID}.7.{index + 1}"
    image.StudyInstanceUID = STUDY_UID
    image.SeriesInstanceUID = f"{STUDY_UID}.7"
    image.FrameOfReferenceUID = f"{STUDY_UID}.99"
    image.PositionReferenceIndicator = ""
    image.PatientName, image.PatientID = "Phantom^Synthetic", "P-1"
    image.PatientBirthDate, image.PatientSex, image.PatientAge = "19700101", "F", "056Y"
    image.StudyDate, image.StudyTime = "20261120", "101500"
    image.StudyID, image.AccessionNumber = "S1", "A1"
    image.StudyDescription = "MR head"
    image.ReferringPhysicianName = ""
    image.Modality, image.Manufacturer = "MR", "Scanner maker"
    image.SeriesNumber, image.InstanceNumber = 7, index + 1
    image.SeriesDescription = "SAG T1 POST"
    image.ContrastBolusAgent = "Gadobutrol"
    image.PatientPosition = "HFS"
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    image.ImagePositionPatient = [f"{value:.6f}" for value in first]
    image.ImageOrientationPatient = [f"{value:.10f}" for value in (*row, *column)]
    image.PixelSpacing, image.SliceThickness = list(spacing), gap_mm
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    return image


@pytest.fixture(scope="session")
def scan(tmp_path_factory) -> Callable[..., Series]:
    """Scan the synthetic head; see `write_head`."""
    return lambda **how: write_head(tmp_path_factory.mktemp("head"), **how)


@pytest.fixture(scope="session")
def head(scan) -> Series:
    return scan()


def copy_with_contrast(paths: Sequence[Path], folder: Path) -> Series:
    """Real images stand in for contrast-enhanced ones, of which none are openly licensed."""
    copies = []
    for path in paths:
        image = pydicom.dcmread(path)
        image.ContrastBolusAgent = "Gadobutrol"
        copies.append(folder / path.name)
        image.save_as(copies[-1])
    return Series(tuple(copies))


@pytest.fixture(scope="session")
def philips(shared_data, tmp_path_factory) -> Series:
    """A real sagittal MPRAGE, slightly oblique, every fifteenth slice."""
    paths = sorted((shared_data / "philips_mprage_sag").glob("*.dcm"))[::15]
    return copy_with_contrast(paths, tmp_path_factory.mktemp("philips"))


@pytest.fixture(scope="session")
def siemens(shared_data, tmp_path_factory) -> Series:
    """A real enhanced multi-frame T1; its frames run against the orientation's cross product."""
    paths = sorted((shared_data / "siemens_xa30_enh_t1_sag").glob("6_*/*.dcm"))
    return copy_with_contrast(paths, tmp_path_factory.mktemp("siemens"))


@pytest.fixture(scope="session")
def bundle() -> VolumeBundle:
    return VolumeBundle(
        folder=Path("fistula-demo"),
        analysis="fistula",
        name="fistula-demo",
        version="1.2.3",
        weights_sha256="0123456789abcdef" * 4,
        network=Network("compact-densenet", {}),
        recipe=DEMO_RECIPE,
        occlusion=OcclusionSpec("paper", (6, 7, 7), (6, 7, 7)),
        members=tuple(Member(f"models/fold_{fold}.safetensors", "") for fold in range(5)),
        threshold_low=0.35,
        threshold_high=0.65,
        temperatures=(1.0,) * 5,
        ood_limit=99.0,
        conformal={},
        statement="Trained on synthetic phantoms only: no clinical meaning.",
        intended_input="contrast-enhanced T1 of the head in suspected intracranial hypotension",
    )


@pytest.fixture(scope="session")
def prediction() -> Prediction:
    return Prediction(
        probability=0.8731,
        members=(0.84, 0.88, 0.91, 0.86, 0.8755),
        disagreement=0.0229,
        ood_percentile=42.0,
        conformal=frozenset({SUGGESTED}),
        band=Band.SUGGESTED,
    )


SPOT_SPEC = OcclusionSpec("paper", (2, 2, 2), (2, 2, 2))


@pytest.fixture(scope="session")
def spot_map() -> OcclusionMap:
    """A map that supports at SPOT and speaks against at its mirror image."""
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), axis=-1)
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = SPOT - 8.0 * 14  # so that a grid point falls on the spot
    ras = grid * 8.0 + affine[:3, 3]

    def hill(centre):
        return np.exp(-np.sum((ras - centre) ** 2, axis=-1) / (2 * 10.0**2))

    delta = 0.8 * hill(SPOT) - 0.4 * hill(-SPOT)
    return OcclusionMap(
        delta=delta.astype(np.float32),
        spread=np.zeros_like(delta, dtype=np.float32),
        affine=affine,
        spec=SPOT_SPEC,
        asked=SPOT_SPEC,
        dtype="float32",
        shape=(48, 48, 48),
        positions=delta.size,
        computed=9000,
        error=None,
    )


@pytest.fixture(scope="session")
def lineage(bundle) -> Lineage:
    return Lineage(
        site="site-1",
        study_uid=STUDY_UID,
        analysis="fistula",
        digest="d1ge57",
        bundle=f"{bundle.name} {bundle.version}",
        weights_sha256=bundle.weights_sha256,
        occlusion="paper float32 patch 6x7x7 stride 6x7x7",
    )


@pytest.fixture(scope="session")
def judge(lineage, bundle, prediction, spot_map) -> Callable[..., Judged]:
    """Say what the ensemble would have said of a series; the series' own study is kept."""

    def of(series: Series, **changes) -> Judged:
        sources = series.headers
        return replace(
            Judged(
                lineage=replace(lineage, study_uid=sources[0].StudyInstanceUID),
                created=CREATED,
                sources=sources,
                volume=read_volume(series.paths),
                bundle=bundle,
                prediction=prediction,
                map=spot_map,
            ),
            **changes,
        )

    return of


@pytest.fixture(scope="session")
def judged(judge, head) -> Judged:
    return judge(head)


@pytest.fixture(scope="session")
def estimated(judged) -> Estimated:
    """What is known of the judged study before its map is made."""
    return Estimated(
        replace(judged.lineage, occlusion=""),
        judged.created,
        judged.sources,
        judged.volume,
        judged.bundle,
        judged.prediction,
    )


@pytest.fixture(scope="session")
def refused(lineage, head) -> NotJudged:
    return NotJudged(
        lineage=lineage,
        created=CREATED,
        sources=head.headers,
        refusal=UnusableStudy(
            Reason.NO_CONTRAST,
            "no contrast agent named in any header",
            "a T1 series after contrast agent",
        ),
    )


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Callable[[Sequence[ResultObject]], list[Path]]:
    """Write result objects to files."""

    def write(objects: Sequence[ResultObject]) -> list[Path]:
        folder = tmp_path_factory.mktemp("results")
        paths = []
        for each in objects:
            paths.append(folder / f"{each.kind}-{each.index}.dcm")
            paths[-1].write_bytes(Encoder().encode(each.dataset))
        return paths

    return write


@dataclass(frozen=True)
class Findings:
    """What a validator says about one object, or about a set of them."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def sorted_from(cls, lines: Sequence[str]) -> "Findings":
        return cls(
            tuple(line for line in lines if line.startswith("Error")),
            tuple(line for line in lines if line.startswith("Warning")),
        )


def _installed(command: str, package: str) -> str:
    """A command that the gate cannot do without: no skipping, or the gate is open unseen."""
    found = shutil.which(command)
    if found is None:
        pytest.fail(f"{command} is not installed: apt-get install {package}, then test again")
    return found


def _said_by(command: str, *paths: Path) -> list[str]:
    """What a validator says; its exit status says no more than that."""
    done = subprocess.run(
        [command, *paths], check=False, capture_output=True, text=True, errors="replace"
    )
    return (done.stdout + done.stderr).splitlines()


@pytest.fixture(scope="session")
def dciodvfy() -> Callable[[Path], Findings]:
    """David Clunie's check of one object against its IOD."""
    command = _installed("dciodvfy", "dicom3tools")

    def check(path: Path) -> Findings:
        lines = _said_by(command, path)
        assert any(not line.startswith(("Error", "Warning")) for line in lines), lines  # the IOD
        return Findings.sorted_from(lines)

    return check


@pytest.fixture(scope="session")
def dsrdump() -> Callable[[Path], list[str]]:
    """What DCMTK reads of a report; what it cannot read, it says in lines with `E:`."""
    command = _installed("dsrdump", "dcmtk")

    def read(path: Path) -> list[str]:
        lines = _said_by(command, path)
        assert lines
        return lines

    return read


@pytest.fixture(scope="session")
def dcentvfy() -> Callable[[Sequence[Path]], Findings]:
    """David Clunie's check that objects agree on the patient, study and series they share."""
    command = _installed("dcentvfy", "dicom3tools")

    def check(paths: Sequence[Path]) -> Findings:
        return Findings.sorted_from(_said_by(command, *paths))

    return check


@pytest.fixture(scope="session")
def pixelmed() -> Iterator[Callable[[Path], Findings]]:
    """PixelMed's DicomSRValidator, which IHE uses, in one Java process for the whole session."""
    java = _installed("java", "default-jdk-headless")
    _installed("javac", "default-jdk-headless")
    if not PIXELMED_JAR.is_file():
        pytest.fail(f"{PIXELMED_JAR} is absent: apt-get install pixelmed-apps, then test again")
    driver = Path(__file__).with_name("ValidateReports.java")
    process = subprocess.Popen(
        [java, *PIXELMED_OPTIONS, "-cp", PIXELMED_JAR, driver],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def check(path: Path) -> Findings:
        print(path, file=process.stdin, flush=True)
        lines = []
        while (line := process.stdout.readline()) not in ("end\n", ""):
            lines.append(line)
        assert "IOD validation complete\n" in lines, lines
        return Findings.sorted_from([line.strip() for line in lines])

    yield check
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=30)


@pytest.fixture(scope="session")
def content() -> Callable[[Dataset, str], Dataset]:
    """Find the first content item of a report by the meaning of its concept name."""

    def find(container: Dataset, meaning: str) -> Dataset:
        return next(item for item in items_of(container) if name_of(item) == meaning)

    return find


def items_of(container: Dataset) -> Iterator[Dataset]:
    for item in container.get("ContentSequence", []):
        yield item
        yield from items_of(item)


def name_of(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning
