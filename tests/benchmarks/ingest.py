"""How fast instances are taken in: `make bench-ingest`, monro beside four other receivers.

The same sender for all: DCMTK's storescu on loopback, with PDUs of 128 KiB and without Nagle's
delay, and once more with its defaults. Every file is compared afterwards: the encoded dataset byte
for byte for those that store it as it came, monro and the floor (the least that accepts a C-STORE);
UID and pixels for storescp, Orthanc and plain pynetdicom, which decode it and encode it anew. Only
monro and the floor wait for the disk before they answer.

Nothing is removed before the end: for minutes, ext4 looks at every inode that was freed before it
takes one, and whoever receives next would pay. What is not written yet is waited for likewise.
TMPDIR says where all of it lies, if not in /tmp.
"""

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE, evt

from deploy.stack import free_ports
from tests.system.conftest import DCMTK_STORESCU, Orthanc

ASSOCIATIONS: Final = (1, 4, 16)
QUICK: Final = ("-pdu", "131072", "--max-send-pdu", "131072")
SIZE: Final = 256

# Receivers that store the dataset as it came.
VERBATIM: Final = frozenset({"monro", "floor"})
# PS3.10 7.1: preamble, prefix, and the element that says how long the rest of the file meta is.
META_START_BYTES: Final = 144

# Figure: value of monro over that of a peer, at so many associations.
GOALS: Final = {
    ("orthanc", 1): 2.0,
    ("orthanc", 4): 2.5,
    ("storescp", 4): 0.6,
    ("floor", 1): 0.6,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1008)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=["plain", "floor"], help="(run one of the receivers)")
    parser.add_argument("--port", type=int)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.serve:
        {"plain": serve_plain, "floor": serve_floor}[asked.serve](asked.folder, asked.port)
        return
    os.environ["TCP_NODELAY"] = "1"  # for DCMTK, Orthanc's included: answers wait for Nagle too
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = write_slices(folder / "slices", asked.instances)
        measured = measure(folder, parts, asked.rounds)
    for associations in ASSOCIATIONS:
        for peer in ("storescp", "orthanc", "plain", "floor"):
            tell(measured, peer, associations)
    for peer in ("storescp", "orthanc"):
        tell(measured, peer, 0)


def write_slices(folder: Path, instances: int, size: int = SIZE) -> list[Path]:
    """MR slices (of 131 kB by default), in as many folders as there may be senders at most."""
    rng = np.random.default_rng(0)
    parts = [folder / f"{number:02}" for number in range(max(ASSOCIATIONS))]
    study = generate_uid()
    for part in parts:
        part.mkdir(parents=True)
        series = generate_uid()
        for number in range(instances // len(parts)):
            image = Dataset()
            image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, generate_uid()
            image.StudyInstanceUID, image.SeriesInstanceUID = study, series
            image.PatientName, image.PatientID, image.Modality = "Bench^Mark", "B-1", "MR"
            image.SeriesDescription, image.InstanceNumber = "bench", number + 1
            image.StudyID, image.SeriesNumber = "1", 1
            image.Rows = image.Columns = size
            image.BitsAllocated = image.BitsStored = 16
            image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 0, 1
            image.PhotometricInterpretation = "MONOCHROME2"
            image.PixelData = rng.integers(0, 4096, (size, size), np.uint16).tobytes()
            image["PixelData"].VR = "OW"
            image.file_meta = FileMetaDataset()
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            image.save_as(part / f"{number:04}.dcm", enforce_file_format=True)
    return parts


def measure(folder: Path, parts: Sequence[Path], rounds: int) -> dict[tuple[str, int], float]:
    """Instances per second of each receiver, at each number of associations; 0: the defaults."""
    files = [path for part in parts for path in part.glob("*.dcm")]
    sent = {name: set(map(content_of(name), files)) for name in RECEIVERS}
    found: dict[tuple[str, int], list[float]] = {}
    turns = [(turn, associations) for turn in range(rounds) for associations in ASSOCIATIONS]
    # With the defaults once, at the end: a minute each, and all alike.
    for turn, associations in [*turns, (rounds, 0)]:
        for name, receiver in RECEIVERS.items():
            place = folder / f"{turn}-{name}-{associations}"
            (port,) = free_ports(1)
            os.sync()
            with receiver(place, port):
                until_it_answers(port)
                rate = send(parts, port, associations)
                check(place, sent[name], name)
            found.setdefault((name, associations), []).append(rate)
            say(f"{name}, {associations or 'defaults'}: {rate:.0f} instances/s")
    return {key: statistics.median(rates) for key, rates in found.items()}


def send(parts: Sequence[Path], port: int, associations: int) -> float:
    """Send all slices over so many associations at a time; instances per second."""
    number = associations or 1
    options = QUICK if associations else ()
    environment = dict(os.environ)
    if not associations:
        environment.pop("TCP_NODELAY")
    started = time.monotonic()
    senders = [
        subprocess.Popen(
            [DCMTK_STORESCU, *options, "-aet", "SENDER", "-aec", "BENCH", "+sd", "+r", "127.0.0.1",
             str(port), *map(str, parts[first::number])],
            env=environment, stdout=subprocess.DEVNULL,
        )
        for first in range(number)
    ]  # fmt: skip
    codes = [sender.wait() for sender in senders]
    seconds = time.monotonic() - started
    assert not any(codes), f"storescu ended with {codes}"
    return sum(1 for part in parts for _ in part.glob("*.dcm")) / seconds


def digest(path: Path) -> str:
    """What must be there again, however it is encoded: UID and pixels."""
    dataset = dcmread(path)
    pixels = hashlib.sha256(dataset.PixelData).hexdigest()
    return f"{dataset.SOPInstanceUID} {pixels}"


def dataset_digest(path: Path) -> str:
    """What must be there again, byte for byte: everything after the file meta information."""
    content = path.read_bytes()
    length = int.from_bytes(content[META_START_BYTES - 4 : META_START_BYTES], "little")
    return hashlib.sha256(content[META_START_BYTES + length :]).hexdigest()


def content_of(name: str) -> Callable[[Path], str]:
    """What of a file a receiver must keep."""
    return dataset_digest if name in VERBATIM else digest


def check(place: Path, sent: set[str], name: str) -> None:
    """Every file that was sent lies there."""
    files = [path for path in place.rglob("*") if path.is_file() and path.stat().st_size > SIZE**2]
    held = {content_of(name)(path) for path in files if is_dicom(path)}
    assert sent <= held, f"{name} lacks {len(sent - held)} of {len(sent)} instances"


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def tell(measured: dict[tuple[str, int], float], peer: str, associations: int) -> None:
    """One line: above 1, we are faster."""
    value, peer_value = measured["monro", associations], measured[peer, associations]
    line = {
        "figure": f"ingest.vs_{peer}_{associations or 'defaults'}",
        "value": round(value, 1),
        "unit": "instances/s",
        "peer": peer,
        "peer_value": round(peer_value, 1),
        "ratio": round(value / peer_value, 2),
        "goal": GOALS.get((peer, associations)),
    }
    print(json.dumps(line), flush=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def until_it_answers(port: int) -> None:
    """Wait until as many associations were accepted as will be at a time: by all processes."""
    deadline = time.monotonic() + 30
    entity = AE(ae_title="SENDER")
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    accepted = 0
    while accepted < max(ASSOCIATIONS):
        association = entity.associate("127.0.0.1", port, ae_title="BENCH")
        accepted += association.is_established
        association.release()
        assert time.monotonic() < deadline, "the receiver does not answer"


# Receivers


@contextmanager
def running(command: Sequence[str], **settings: str) -> Iterator[int]:
    """A server for as long as it is needed; its process ID."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def listener(place: Path, port: int, **changes: str) -> Iterator[int]:
    """The listener as it is installed; without a broker, which receiving does not need."""
    place.mkdir()
    destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}
    settings = {
        "MONRO_SPOOL": str(place),
        "MONRO_BROKER": "redis://127.0.0.1:1/0",
        "MONRO_SITE": "bench",
        "MONRO_AE_TITLE": "BENCH",
        "MONRO_PORT": str(port),
        "MONRO_OPEN_NODE": "true",
        "MONRO_KEEP_FREE": "0",
        "MONRO_ROOM_FOR_STUDY": "0",
        "MONRO_DESTINATIONS": json.dumps([destination]),
    }
    with running([sys.executable, "-m", "listener", "serve"], **settings | changes) as pid:
        yield pid


@contextmanager
def storescp(place: Path, port: int) -> Iterator[None]:
    """DCMTK's, a process per association; it does not wait for the disk."""
    place.mkdir()
    command = ["/usr/bin/storescp", "--fork", "-pdu", "131072", "-od", str(place), str(port)]
    with running(command):
        yield


@contextmanager
def orthanc(place: Path, port: int) -> Iterator[None]:
    """A real Orthanc, as Debian has it."""
    (http_port,) = free_ports(1)
    server = Orthanc(place, port, http_port, monro_port=1)
    (place / "forward.lua").write_text("")
    server.start()
    try:
        yield
    finally:
        server.stop()


@contextmanager
def ours(name: str, place: Path, port: int) -> Iterator[None]:
    """One of the receivers below."""
    place.mkdir()
    arguments = ["--serve", name, "--port", str(port), "--folder", str(place)]
    with running([sys.executable, "-m", "tests.benchmarks.ingest", *arguments]):
        yield


def serve_plain(folder: Path, port: int) -> None:
    """A Storage SCP as pynetdicom's documentation writes it; it does not wait for the disk."""

    def on_store(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    entity = AE(ae_title="BENCH")
    entity.maximum_pdu_size = 131072
    entity.maximum_associations = 50
    entity.add_supported_context(MRImageStorage, ExplicitVRLittleEndian)
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, on_store)])


def serve_floor(folder: Path, port: int) -> None:
    """The least that takes a C-STORE durably: write, sync file and folder, answer."""
    from tests.benchmarks.floor import serve

    serve(folder, port)


RECEIVERS: Final[dict[str, Any]] = {
    "monro": listener,
    "storescp": storescp,
    "orthanc": orthanc,
    "plain": lambda place, port: ours("plain", place, port),
    "floor": lambda place, port: ours("floor", place, port),
}


if __name__ == "__main__":
    main()
