"""What a worker is told: what it shares with the listener, and MONRO_WORKER_ variables."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from listener.remote import Port
from listener.secret_files import secret_files
from listener.settings import (
    OTHER_PROGRAMS,
    PREFIX,
    Commons,
    ListenerSettings,
    gather,
    given_names,
    refuse_unknown_names,
)
from worker.limits import LIMITS, Limits

WORKER_PREFIX = "MONRO_WORKER_"


class WorkerSettings(BaseSettings):
    """What only a worker is told."""

    model_config = SettingsConfigDict(env_prefix=WORKER_PREFIX, frozen=True, extra="forbid")

    bundles: Annotated[tuple[Path, ...], Field(min_length=1)] = Field(
        description="ensembles to run, each a folder, or all in a folder of folders: "
        '["/opt/monro/bundles"]'
    )
    look_seconds: Annotated[float, Field(gt=0)] = Field(
        default=15, description="pause between looks into these folders for what was put there"
    )
    trusted_keys: tuple[Path, ...] = Field(
        default=(),
        description="public keys, one of which must have signed every bundle: "
        '["/etc/monro/release.pub"]; empty: signatures are not looked at',
    )
    device: str = Field(default="cpu", description="where networks run: cpu, cuda, cuda:1")
    threads: Annotated[int, Field(ge=0)] = Field(
        default=0, description="CPU threads of one worker; 0: as many as there are cores"
    )
    map_mode: Literal["bundle", "paper", "capped", "preview"] = Field(
        default="bundle",
        description="occlusion maps: as the bundle says, or every position exactly (paper), with "
        "bounded boxes and a measured error (capped), or on a coarser grid (preview)",
    )
    map_precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of occlusion maps; auto: bfloat16, with a measured error, where the hardware "
        "computes with it",
    )
    map_seconds: Annotated[float, Field(gt=0)] = Field(
        default=3600,
        description="an occlusion map that would take longer is made in a quicker mode, and the "
        "report says so",
    )
    map_memory_gib: Annotated[float, Field(gt=0)] = Field(
        default=4,
        description="GPU memory for the changes of occlusion maps, beside members and their maps",
    )
    extras: frozenset[Literal["float-map", "region"]] = Field(
        default=frozenset(),
        description="occlusion maps as further objects for research software: a Parametric Map "
        "(float-map; OHIF 3.13 shows the source images wrongly after it) and a Segmentation of "
        "the hottest region (region)",
    )
    regions: Literal["propose and judge", "wait for reader"] = Field(
        default="propose and judge",
        description="where an analysis looks at regions: judge at once with what is proposed, and "
        "again when a reader's segmentation comes; or propose only, and judge what a reader sent",
    )
    early_report: bool = Field(
        default=False,
        description="send the score as a report of its own before the map is made; the final "
        "report then replaces it",
    )
    series_base: Annotated[int, Field(ge=0, le=2**31 - 11)] | None = Field(
        default=None, description="results' series numbers begin after it; empty: as the analysis"
    )
    largest_series: Annotated[ByteSize, Field(gt=0)] = Field(
        default=ByteSize(LIMITS.series_bytes),
        description="files of a series, also once inflated; larger ones are refused",
    )
    most_slices: Annotated[int, Field(ge=1)] = Field(
        default=LIMITS.slices, description="slices of a series; those with more are refused"
    )
    most_slice_pixels: Annotated[int, Field(ge=1)] = Field(
        default=LIMITS.slice_pixels, description="pixels of a slice; larger ones are refused"
    )
    most_voxels: Annotated[int, Field(ge=1)] = Field(
        default=LIMITS.voxels,
        description="voxels of a series; each takes up to twelve bytes while it is read",
    )
    decode_seconds: Annotated[float, Field(gt=0)] = Field(
        default=LIMITS.decode_seconds,
        description="for the pixels of a series; what takes longer is refused",
    )
    metrics_port: Port | None = Field(
        default=None, description="port of this worker's figures for Prometheus; empty: none"
    )
    metrics_bind: str = Field(
        default="127.0.0.1", description="address to answer Prometheus on, which needs no password"
    )
    algorithm_purpose: Literal["Newcode1", "109102"] = Field(
        default="Newcode1",
        description="code for the model among contributing equipment: that of IHE AIR, or DICOM's "
        "109102 where an archive refuses the former",
    )

    @property
    def limits(self) -> Limits:
        """What is spent on one series at most."""
        return Limits(
            self.largest_series,
            self.most_slices,
            self.most_slice_pixels,
            self.most_voxels,
            self.decode_seconds,
        )


@dataclass(frozen=True)
class Settings:
    """Both halves."""

    commons: Commons
    worker: WorkerSettings


def read_settings() -> Settings:
    """Read a worker's settings, from variables and files as the listener reads its own.

    Raises:
        BadSettings: a setting is missing, wrong or unknown.
    """
    secrets = secret_files(os.environ)
    given = given_names(secrets)
    refuse_unknown_names(ListenerSettings.model_fields, PREFIX, given, leave=OTHER_PROGRAMS)
    refuse_unknown_names(WorkerSettings.model_fields, WORKER_PREFIX, given)
    return Settings(
        gather(Commons, PREFIX, secrets), gather(WorkerSettings, WORKER_PREFIX, secrets)
    )
