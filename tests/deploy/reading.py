"""Reads what is deployed: compose files, Kubernetes manifests, units, settings in all of them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"


class ComposeLoader(yaml.SafeLoader):
    """YAML as Compose reads it: `!reset` takes away what an earlier file said."""


class Reset:
    """Stands for what is taken away."""


ComposeLoader.add_constructor("!reset", lambda _loader, _node: Reset())


def compose(*names: str) -> dict[str, Any]:
    """Compose files of deploy/compose, each laid over those before it."""
    merged: dict[str, Any] = {}
    for name in names:
        text = (DEPLOY / "compose" / name).read_text()
        merged = _laid_over(merged, yaml.load(text, Loader=ComposeLoader))
    return merged


def _laid_over(lower: dict[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        if isinstance(value, Reset):
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _laid_over(merged[key], value)
        else:
            merged[key] = value
    return merged


def manifests(folder: str) -> Iterator[dict[str, Any]]:
    """Every object of a folder's kustomization."""
    place = DEPLOY / "kubernetes" / folder
    kustomization = yaml.safe_load((place / "kustomization.yaml").read_text())
    for name in kustomization["resources"]:
        yield from yaml.safe_load_all((place / name).read_text())


def settings_file(path: Path) -> dict[str, str]:
    """NAME=value, as Docker and systemd read it."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    pairs = (line.partition("=") for line in lines)
    return {name: value.strip("'\"") for name, _, value in pairs}


def set_only(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, Any]) -> None:
    """Have these settings, and no other of monro."""
    for name in [name for name in os.environ if name.startswith("MONRO_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        if name.startswith("MONRO_"):
            monkeypatch.setenv(name, str(value))


def require_worker_metrics() -> None:
    """Say what cannot be tested before workers have figures."""
    from worker.settings import WorkerSettings

    if "metrics_port" not in WorkerSettings.model_fields:
        pytest.skip("workers have no metrics_port in this tree: their settings were NOT checked")
