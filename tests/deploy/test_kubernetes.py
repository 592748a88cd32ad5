"""Manifests, as far as they can be judged without a cluster: schemas, restrictions, and whether the
programs take what they are handed.
"""

import json
import platform
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from listener.dispatch import QUEUES
from listener.settings import read_settings
from tests.deploy.reading import DEPLOY, manifests, require_worker_metrics, set_only
from tests.tools import program
from trainer.settings import read_config

FOLDERS = ("service", "scaling", "monitoring", "training", "filling")
VERSIONS = ("1.29", "1.32", kubernetes_validate.latest_version())
"""The oldest that the Indexed Job needs, one in between, and the newest whose schemas are here."""

CUSTOM = json.loads((Path(__file__).parent / "schemas" / "custom.json").read_text())
NOT_KUBERNETES = ("keda.sh", "monitoring.coreos.com")

ALL = [(folder, each) for folder in FOLDERS for each in manifests(folder)]
KINDS = [f"{folder}-{each['kind']}-{each['metadata']['name']}" for folder, each in ALL]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for _folder, each in ALL:
        if "template" in each["spec"] if "spec" in each else False:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for _, each in ALL if each["kind"] == kind}


@pytest.mark.parametrize(("_folder", "manifest"), ALL, ids=KINDS)
def test_each_is_what_its_schema_says(_folder: str, manifest: dict[str, Any]) -> None:
    if manifest["apiVersion"].startswith(NOT_KUBERNETES):
        jsonschema.validate(manifest, CUSTOM)
        return
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_find_what_is_misspelt() -> None:
    listener = json.loads(json.dumps(of_kind("StatefulSet")["monro-listener"]))
    listener["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(listener, VERSIONS[-1], strict=True)
    scaled = json.loads(json.dumps(of_kind("ScaledObject")["monro-worker"]))
    scaled["spec"]["triggers"][0]["metadata"]["listname"] = "monro"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(scaled, CUSTOM)


@pytest.mark.parametrize("folder", FOLDERS)
def test_kustomize_builds_it(folder: str) -> None:
    done = kustomize(DEPLOY / "kubernetes" / folder)

    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert sorted(map(named, built)) == sorted(map(named, manifests(folder)))
    for each in built:
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "monro"


def test_kustomize_finds_a_file_that_is_not_there(tmp_path: Path) -> None:
    copy = shutil.copytree(DEPLOY / "kubernetes" / "training", tmp_path / "training")
    (copy / "fit.yaml").unlink()

    done = kustomize(copy)

    assert done.returncode != 0
    assert "fit.yaml" in done.stderr


def kustomize(folder: Path) -> subprocess.CompletedProcess[str]:
    if platform.freedesktop_os_release()["ID"] == "ubuntu" and not shutil.which("kubectl"):
        pytest.skip("Ubuntu has no package of kubectl, so kustomizations were NOT built")
    command = [program("kubectl", "kubernetes-client"), "kustomize", folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def named(manifest: dict[str, Any]) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


@pytest.mark.parametrize(("name", "pod"), list(pods()))
def test_every_pod_keeps_to_the_restricted_standard(name: str, pod: dict[str, Any]) -> None:
    whole = pod["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert whole["runAsUser"] > 0
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
    kinds = {key for volume in pod["volumes"] for key in volume if key != "name"}
    assert kinds <= {"persistentVolumeClaim", "secret", "emptyDir", "configMap"}


def test_the_namespace_enforces_it() -> None:
    labels = of_kind("Namespace")["monro"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_nobody_talks_with_anybody_unless_a_policy_says_so() -> None:
    policies = of_kind("NetworkPolicy")
    nobody = policies.pop("nobody")["spec"]
    assert nobody == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        for direction in ("ingress", "egress"):
            for rule in policy["spec"].get(direction, ()):
                assert rule.get("ports"), name
                assert rule.get("from") or rule.get("to"), name


def test_services_and_policies_name_labels_and_ports_that_pods_have() -> None:
    templates = [each["spec"]["template"] for _, each in ALL if "template" in each.get("spec", {})]
    labels = [template["metadata"]["labels"] for template in templates]
    for service in of_kind("Service").values():
        chosen = service["spec"]["selector"]
        (template,) = [
            each for each in templates if chosen.items() <= each["metadata"]["labels"].items()
        ]
        names = {port["name"] for each in template["spec"]["containers"] for port in each["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    for policy in of_kind("NetworkPolicy").values():
        chosen = policy["spec"]["podSelector"].get("matchLabels", {})
        assert any(chosen.items() <= each.items() for each in labels)


def test_variables_of_services_cannot_pass_for_settings() -> None:
    # monro-console would be MONRO_CONSOLE_PORT=tcp://10.96.0.7:8442.
    for name, pod in pods():
        if name != "monro-fit":
            assert pod["enableServiceLinks"] is False, name


def test_the_listener_takes_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_only(monkeypatch, data("monro", "monro-listener") | secrets(tmp_path))
    settings = read_settings()
    (destination,) = settings.destinations
    allowed = of_kind("NetworkPolicy")["listener"]["spec"]["egress"]
    assert any(
        {"ipBlock": {"cidr": f"{destination.host}/32"}} in rule["to"]
        and rule["ports"][0]["port"] == destination.port
        for rule in allowed
    )


def test_the_worker_takes_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from worker.settings import read_settings as read_worker_settings

    require_worker_metrics()
    set_only(monkeypatch, data("monro", "monro-worker") | secrets(tmp_path))
    settings = read_worker_settings()
    pod = of_kind("Deployment")["monro-worker"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > settings.worker.map_seconds


def data(*names: str) -> dict[str, str]:
    maps = of_kind("ConfigMap")
    return {key: value for name in names for key, value in maps[name]["data"].items()}


def secrets(folder: Path) -> dict[str, str]:
    """What the Secret would be, as files."""
    (folder / "monro_broker").write_text("redis://redis:6379/0")
    (folder / "monro_ledger").write_text("postgresql+psycopg://ledger/monro")
    return {"MONRO_SECRETS": str(folder)}


def test_workers_are_as_many_as_the_queues_ask_for() -> None:
    scaled = of_kind("ScaledObject")["monro-worker"]["spec"]
    assert {trigger["metadata"]["listName"] for trigger in scaled["triggers"]} == {*QUEUES.values()}
    # Without a worker there is no bundle, without a bundle no message, without one no worker.
    assert scaled["minReplicaCount"] >= 1
    assert scaled["scaleTargetRef"]["name"] in of_kind("Deployment")
    redis = of_kind("Service")["redis"]
    for trigger in scaled["triggers"]:
        assert trigger["metadata"]["address"] == (
            f"redis.monro.svc.cluster.local:{redis['spec']['ports'][0]['port']}"
        )
        assert trigger["authenticationRef"]["name"] in of_kind("TriggerAuthentication")


def test_every_claim_that_a_pod_mounts_is_there_and_may_be_mounted_so() -> None:
    claims = of_kind("PersistentVolumeClaim")
    mounted = set()
    for name, pod in pods():
        for volume in pod["volumes"]:
            claim = volume.get("persistentVolumeClaim")
            if claim:
                mounted.add(claim["claimName"])
                modes = claims[claim["claimName"]]["spec"]["accessModes"]
                # Somebody has to fill it, and several nodes read it.
                assert modes == ["ReadWriteMany"], (name, claim)
    assert mounted == set(claims)


def test_bundles_are_filled_where_workers_look_and_workers_cannot_change_them() -> None:
    def mounts(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in pod["containers"][0]["volumeMounts"]}

    found = dict(pods())
    worker, filling = mounts(found["monro-worker"]), mounts(found["monro-fill"])
    assert worker["bundles"]["mountPath"] == filling["bundles"]["mountPath"]
    assert worker["bundles"]["readOnly"]
    assert mounts(found["monro-fit"])["data"]["mountPath"] == filling["training"]["mountPath"]


def test_each_fold_is_an_index_of_the_job(tmp_path: Path) -> None:
    job = of_kind("Job")["monro-fit"]["spec"]
    config = tmp_path / "fit.toml"
    config.write_text(of_kind("ConfigMap")["monro-fit"]["data"]["fit.toml"])

    assert job["completionMode"] == "Indexed"
    assert job["completions"] == read_config(config).fit.folds
    assert read_config(config).speed.compile == "off"
    assert tomllib.loads(config.read_text())
