"""The manifests for KubeRay, and the script that its jobs start.

Pods, volume claims and everything inside them are validated strictly against Kubernetes' own published schemas, which
the package kubernetes-validate carries. KubeRay publishes its schemas with its operator and in no package that could be
pinned here; so the fields of `ray.io/v1` that the manifests use are modelled below, closed and typed, as its API
reference (KubeRay 1.6) describes them. A field that is misspelt, misplaced or of the wrong type fails; one that a later
KubeRay drops does not.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from launch.manifest import versions

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "launch/kubernetes"
KUBERNETES = "1.33"
Count = Annotated[int, Field(ge=0, lt=2**31, strict=True)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PodTemplate(Strict):
    metadata: dict[str, Any] = {}
    spec: dict[str, Any]

    @model_validator(mode="after")
    def _is_a_pod(self) -> PodTemplate:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **self.metadata}, "spec": self.spec}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        return self


class HeadGroup(Strict):
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None
    rayStartParams: dict[str, str]
    template: PodTemplate


class WorkerGroup(Strict):
    groupName: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    replicas: Count
    minReplicas: Count
    maxReplicas: Count
    rayStartParams: dict[str, str]
    template: PodTemplate

    @model_validator(mode="after")
    def _are_in_order(self) -> WorkerGroup:
        if not self.minReplicas <= self.replicas <= self.maxReplicas:
            raise ValueError("minReplicas <= replicas <= maxReplicas")
        return self


class AuthOptions(Strict):
    mode: Literal["token", "disabled"]
    secretName: str


class ClusterSpec(Strict):
    rayVersion: str
    authOptions: AuthOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class JobSpec(Strict):
    entrypoint: str
    submissionMode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]
    backoffLimit: Count
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: Count
    rayClusterSpec: ClusterSpec


class Metadata(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=47)]


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


def read(name: str) -> Any:
    return yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())


def clusters() -> Iterator[ClusterSpec]:
    yield RayCluster.model_validate(read("raycluster")).spec
    yield RayJob.model_validate(read("rayjob")).spec.rayClusterSpec


def test_the_manifests_are_valid() -> None:
    assert {path.stem for path in MANIFESTS.glob("*.yaml")} == {"raycluster", "rayjob", "storage"}
    kubernetes_validate.validate(read("storage"), KUBERNETES, strict=True)
    assert len(list(clusters())) == 2


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "rayVerzion"), "2.60.0"),
        (("spec", "workerGroupSpecs", 0, "replicas"), "2"),
        (("spec", "workerGroupSpecs", 0, "minReplicas"), 3),
        (("spec", "headGroupSpec", "rayStartParams", "num-gpus"), 0),
        (("spec", "authOptions", "mode"), "password"),
        (("spec", "headGroupSpec", "template", "spec", "terminationGracePeriodSecond"), 180),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "resources", "limit"), {}),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "env", 0, "value"), 1),
    ],
)
def test_a_mistake_is_found(place: tuple[Any, ...], value: Any) -> None:
    manifest = read("raycluster")
    inside = manifest
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    with pytest.raises((ValidationError, kubernetes_validate.ValidationError)):
        RayCluster.model_validate(manifest)


def test_the_manifests_fit_this_release_and_each_other() -> None:
    claim, first, second = read("storage")["metadata"]["name"], *clusters()
    assert first == second, "the cluster of the job and the one that stays are the same"
    assert first.rayVersion == versions()["ray"]
    assert first.authOptions == AuthOptions(mode="token", secretName="ponder-token")
    job = RayJob.model_validate(read("rayjob"))
    pods = [first.headGroupSpec.template.spec, first.workerGroupSpecs[0].template.spec]
    for pod in pods:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        assert {"name": "PONDER_RUNS", "value": "/runs"} in container["env"]
        assert [init["command"][-1] for init in pod["initContainers"]] == ["doctor"]
        limits, asked = container["resources"]["limits"], container["resources"]["requests"]
        assert limits["memory"] == asked["memory"] and asked.get("nvidia.com/gpu") == limits.get("nvidia.com/gpu")
    nodes = 1 + first.workerGroupSpecs[0].replicas
    assert f"PONDER_NODES={nodes}" in job.spec.entrypoint and f"PONDER_NAME={job.metadata.name}" in job.spec.entrypoint
    assert re.search(r"bash /ponder/(\S+)", job.spec.entrypoint)[1] == "launch/ray_job.sh"  # type: ignore[index]
    assert job.spec.backoffLimit > 0 and job.spec.shutdownAfterJobFinishes


# ------------------------------------------------------------------------------------------------ the job's script


FAKE = """#!/usr/bin/env bash
echo "$@" >> "$CALLS"
if [[ "$1" == preflight ]]; then
  count=$(grep -c ^preflight "$CALLS")
  [[ "$count" -gt "${JOINS_AT:-0}" ]] || exit 2
  exit "${UNFIT:-0}"
fi
exit "${TRAINED:-0}"
"""


def start(tmp_path: Path, *arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The script with a `ponder` that only notes how it was called. `sleep` returns at once."""
    calls, programs = tmp_path / "calls.txt", tmp_path / "venv/bin"
    programs.mkdir(parents=True, exist_ok=True)
    calls.write_text("")
    for name, text in (("ponder", FAKE), ("sleep", "#!/bin/sh\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    given = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "PONDER_VENV": str(tmp_path / "venv"),
        "PONDER_RUNS": str(tmp_path / "runs"),
        "PONDER_ADDRESS": "10.0.0.1:6379",
        "PONDER_NAME": "first",
        "RAY_AUTH_TOKEN": "secret",
        **environment,
    }
    done = subprocess.run(
        ["bash", str(ROOT / "launch/ray_job.sh"), *arguments], env=given, capture_output=True, text=True
    )
    return done, calls.read_text().splitlines()


def test_a_new_run_begins_once_all_nodes_are_there(tmp_path: Path) -> None:
    done, calls = start(tmp_path, "quickstart", "--set", "run.seed=1", JOINS_AT="2", PONDER_NODES="3")
    runs = tmp_path / "runs"
    check = f"preflight --address 10.0.0.1:6379 --dir {runs} --nodes 3 --device cpu"
    train = f"train quickstart --set run.seed=1 --set run.dir={runs} --set run.name=first"
    assert (done.returncode, calls) == (0, [check, check, check, f"{train} --set cluster.address=10.0.0.1:6379"])


def test_a_job_that_is_started_again_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "runs/first"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    done, calls = start(tmp_path, "quickstart", TRAINED="3")
    assert done.returncode == 3, "the driver's exit code is the job's"
    assert calls[1:] == [f"train --resume {run} --set cluster.address=10.0.0.1:6379"]


def test_unfit_or_missing_nodes_and_a_missing_token_stop_the_job(tmp_path: Path) -> None:
    done, calls = start(tmp_path, "quickstart", UNFIT="1")
    assert done.returncode == 1 and len(calls) == 1 and "not fit" in done.stderr
    done, calls = start(tmp_path, "quickstart", JOINS_AT="99", PONDER_WAIT="0")
    assert done.returncode == 2 and len(calls) == 1
    done, calls = start(tmp_path, "quickstart", RAY_AUTH_TOKEN="")
    assert done.returncode == 2 and not calls and "RAY_AUTH_TOKEN" in done.stderr
    done, calls = start(tmp_path)
    assert done.returncode == 2 and not calls and "no recipe" in done.stderr
