"""The RayJob against a model of its definition in KubeRay 1.6, and its hook against a driver to stop."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "launch" / "kuberay" / "rayjob.yaml"
DOCKERFILE = ROOT / "launch" / "kuberay" / "Dockerfile"


class Strict(BaseModel):
    """Kubernetes drops a field that it does not know, with a warning at most; here it is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class KeyReference(Strict):
    name: str
    key: str
    optional: bool = False


class ValueFrom(Strict):
    secretKeyRef: KeyReference


class Variable(Strict):
    name: str
    value: str | None = None
    valueFrom: ValueFrom | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        assert (self.value is None) != (self.valueFrom is None), self.name
        return self


class Exec(Strict):
    command: Annotated[list[str], Field(min_length=1)]


class Hook(Strict):
    exec: Exec


class Lifecycle(Strict):
    preStop: Hook


class Resources(Strict):
    requests: dict[str, str | int]
    limits: dict[str, str | int]


class VolumeMount(Strict):
    name: str
    mountPath: str
    readOnly: bool = False


class Container(Strict):
    name: str
    image: str
    env: list[Variable] = []
    lifecycle: Lifecycle
    resources: Resources
    volumeMounts: list[VolumeMount] = []


class ClaimReference(Strict):
    claimName: str


class ConfigMapReference(Strict):
    name: str


class Volume(Strict):
    name: str
    persistentVolumeClaim: ClaimReference | None = None
    configMap: ConfigMapReference | None = None


class SecurityContext(Strict):
    fsGroup: int


class PodSpec(Strict):
    terminationGracePeriodSeconds: int
    securityContext: SecurityContext | None = None
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume] = []

    @model_validator(mode="after")
    def _mounts_exist(self) -> Self:
        volumes = {volume.name for volume in self.volumes}
        mounts = {mount.name for container in self.containers for mount in container.volumeMounts}
        assert mounts == volumes
        return self


class PodTemplate(Strict):
    spec: PodSpec


class HeadGroup(Strict):
    serviceType: Literal["ClusterIP"] = "ClusterIP"
    rayStartParams: dict[str, str]
    template: PodTemplate


class WorkerGroup(Strict):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int
    rayStartParams: dict[str, str]
    template: PodTemplate

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        assert 0 <= self.minReplicas <= self.replicas <= self.maxReplicas
        return self


class AuthOptions(Strict):
    mode: Literal["disabled", "token"]


class RayCluster(Strict):
    rayVersion: str
    authOptions: AuthOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]

    @model_validator(mode="after")
    def _ray_knows_tokens(self) -> Self:
        """The operator refuses the mode token for an older Ray."""
        major, minor, _ = map(int, self.rayVersion.split("."))
        assert self.authOptions.mode == "disabled" or (major, minor) >= (2, 52)
        return self


class RayJobSpec(Strict):
    entrypoint: str
    submissionMode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]
    suspend: bool
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: Annotated[int, Field(ge=0)]
    activeDeadlineSeconds: Annotated[int, Field(gt=0)]
    backoffLimit: Annotated[int, Field(ge=0)]
    rayClusterSpec: RayCluster

    @model_validator(mode="after")
    def _operator_rules(self) -> Self:
        assert self.shutdownAfterJobFinishes or not (self.suspend or self.ttlSecondsAfterFinished)
        return self


class Metadata(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,45}[a-z0-9])?$")]


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class ClaimSpec(Strict):
    accessModes: list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]]
    resources: dict[Literal["requests"], dict[Literal["storage"], str]]


class Claim(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


@pytest.fixture(scope="module")
def documents() -> list[Any]:
    return list(yaml.safe_load_all(FILE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def job(documents: list[Any]) -> RayJob:
    return RayJob.model_validate(documents[1])


def test_every_field_is_one_of_kuberays(documents: list[Any], job: RayJob) -> None:
    assert len(documents) == 2
    claim = Claim.model_validate(documents[0])
    head = job.spec.rayClusterSpec.headGroupSpec.template.spec
    assert [v.persistentVolumeClaim.claimName for v in head.volumes if v.persistentVolumeClaim] == [
        claim.metadata.name
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false"),
        ("authOptions", "authOption"),
        ('rayVersion: "2.60.0"', 'rayVersion: "2.51.0"'),
        ("backoffLimit: 10", "backoffLimits: 10"),
        ("claimName: sweep-runs", "claim: sweep-runs"),
        ('num-cpus: "0"', "num-cpus: 0"),
    ],
)
def test_the_model_refuses_what_the_operator_would(old: str, new: str) -> None:
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(ValidationError):
        RayJob.model_validate(list(yaml.safe_load_all(text.replace(old, new)))[1])


def test_one_ray_and_one_image_for_everything(job: RayJob) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    cluster = job.spec.rayClusterSpec
    assert cluster.rayVersion == pinned[1]
    assert f"FROM rayproject/ray:{pinned[1]}-" in DOCKERFILE.read_text(encoding="utf-8")
    groups = [cluster.headGroupSpec, *cluster.workerGroupSpecs]
    assert len({container.image for group in groups for container in group.template.spec.containers}) == 1


def test_the_token_is_on_and_only_the_head_has_storage_and_runs(job: RayJob) -> None:
    cluster = job.spec.rayClusterSpec
    assert cluster.authOptions.mode == "token"
    (head,) = cluster.headGroupSpec.template.spec.containers
    secret = next(variable for variable in head.env if variable.name == "SWEEPS_STORAGE").valueFrom
    assert secret is not None
    assert not secret.secretKeyRef.optional
    for group in cluster.workerGroupSpecs:
        for container in group.template.spec.containers:
            assert container.env == []
            assert container.volumeMounts == []
            assert container.resources.requests == container.resources.limits


def test_the_entrypoint_is_the_driver_of_the_image_on_the_claim(job: RayJob) -> None:
    program, *arguments = job.spec.entrypoint.split()
    assert f"/usr/local/bin/{program}" in DOCKERFILE.read_text(encoding="utf-8")
    (head,) = job.spec.rayClusterSpec.headGroupSpec.template.spec.containers
    places = [mount.mountPath for mount in head.volumeMounts]
    assert arguments[arguments.index("--set") + 1] == f"output={places[0]}"
    assert arguments[1].startswith(places[1])


def test_a_pod_that_is_taken_away_waits_for_the_drivers_checkpoints(
    job: RayJob, stand_in: Callable[[str, str], Path], clean_environ: dict[str, str], tmp_path: Path
) -> None:
    stand_in("sweeps", "trap 'sleep 0.5; touch \"$HOME/saved\"; exit 130' TERM; while :; do sleep 0.05; done")
    spec = job.spec.rayClusterSpec.headGroupSpec.template.spec
    hook = spec.containers[0].lifecycle.preStop.exec.command
    environ = {**clean_environ, "SWEEPS_DRIVER": str(tmp_path / "driver")}
    nothing = subprocess.run(hook, env=environ, capture_output=True, timeout=10)
    assert nothing.returncode == 0, "without a driver there is nothing to wait for"
    driver = subprocess.Popen([ROOT / "launch" / "driver.sh", "run", "x.yaml"], env=environ)
    try:
        deadline = time.monotonic() + 10
        while not (tmp_path / "driver" / "pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2)
        subprocess.run(hook, env=environ, check=False, timeout=10)
        assert (tmp_path / "home" / "saved").exists()
        assert driver.wait(timeout=10) == 130
        assert (tmp_path / "driver" / "code").read_text() == "130\n"
    finally:
        driver.kill()
        driver.wait()
    waits = [
        variable.value for variable in spec.containers[0].env if variable.name == "RAY_JOB_STOP_WAIT_TIME_S"
    ]
    assert int(waits[0] or 0) < spec.terminationGracePeriodSeconds
