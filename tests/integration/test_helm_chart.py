"""The Helm chart: its values against their schema, and what helm makes of them against Kubernetes' schemas.

What needs helm is skipped without it on the PATH. The schemas of a PodMonitor and a ScaledObject belong to operators;
of these two the fields are compared with what their documentation asks for.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from consumer.settings.model import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "stream-consumer"
SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
OF_OPERATORS = {"PodMonitor", "ScaledObject"}
HELM = shutil.which("helm")

needs_helm = pytest.mark.skipif(HELM is None, reason="helm is not installed: the chart's templates are not rendered")

Object = dict[str, Any]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def merged(base: Object, over: Object) -> Object:
    """As helm lays values over those of the chart."""
    both = {
        name: merged(base[name], value) if isinstance(value, dict) and isinstance(base.get(name), dict) else value
        for name, value in over.items()
    }
    return {**base, **both}


def refused(values: Object) -> list[str]:
    validator = jsonschema.Draft7Validator(json.loads((CHART / "values.schema.json").read_text()))
    everything = merged(load(CHART / "values.yaml"), values)
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(everything)]


# --- the values, without helm


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_schema_accepts_the_values_of_every_scenario(path: Path) -> None:
    assert refused(load(path)) == []


LEAST = load(CHART / "ci" / "least-values.yaml")


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"replicas": 3}, "replicas"),
        ({"image": {"tag": "latest"}}, "image.tag"),
        ({"image": {"digest": "sha256:abc"}}, "image.digest"),
        ({"keda": {"minReplicas": 0}}, "keda.minReplicas"),
        ({"keda": {"scaleDown": {"stabilizationWindowSeconds": 0}}}, "keda.scaleDown"),
        ({"config": {"sources": {}}}, "config"),
        ({"config": {"http": {"port": 80}}}, "config"),  # the chart's own
        ({"config": {"application": ""}}, "config.application"),
        ({"config": {"shutdown": {"grace": "25000ms"}}}, "config.shutdown.grace"),
        ({"replicaCount": "2"}, "replicaCount"),
    ],
)
def test_the_schema_refuses(values: Object, where: str) -> None:
    (problem,) = refused(merged(LEAST, values))
    assert where in problem


def test_the_chart_alone_is_refused_because_it_names_no_application_source_and_handler() -> None:
    assert len(refused({})) == 3


def test_the_schema_knows_the_sections_of_a_configuration() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]["config"]["properties"]) == set(Settings.model_fields) - {"http"}


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert set(load(CHART / "values.yaml")) == set(schema) - {"global"}


def test_the_templates_use_every_value_and_no_other() -> None:
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    assert set(re.findall(r"\.Values\.(\w+)", text)) == set(load(CHART / "values.yaml"))


# --- what helm makes of them


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HELM), *arguments], capture_output=True, text=True, timeout=60)


def template(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A helm that was built with `go install` believes in a cluster of 1.20.
    return helm("template", *arguments, str(CHART), "--kube-version", "1.29.0")


def rendered(path: Path, *more: str) -> dict[str, Object]:
    """The objects of a release by their kinds."""
    result = template("orders-projector", "--namespace", "orders", "--values", str(path), *more)
    assert result.returncode == 0, result.stderr
    objects = [one for one in yaml.safe_load_all(result.stdout) if one]
    return {one["kind"]: one for one in objects}


@needs_helm
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_helm_finds_nothing_to_complain_of(path: Path) -> None:
    result = helm("lint", "--strict", str(CHART), "--values", str(path))
    assert result.returncode == 0, result.stdout + result.stderr


@needs_helm
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_what_it_renders_is_valid(path: Path) -> None:
    for kind, one in rendered(path).items():
        if kind not in OF_OPERATORS:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


@needs_helm
def test_optional_objects_come_on_request() -> None:
    always = {"ConfigMap", "Deployment"}
    usual = always | {"ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"}
    assert set(rendered(CHART / "ci" / "bare-values.yaml")) == always
    assert set(rendered(CHART / "ci" / "least-values.yaml")) == usual
    everything = rendered(CHART / "ci" / "everything-values.yaml")
    assert set(everything) == usual | OF_OPERATORS | {"Service"}


@needs_helm
def test_the_pod_is_that_of_the_kustomize_base() -> None:
    chart = rendered(CHART / "ci" / "least-values.yaml")["Deployment"]["spec"]
    base = load(DEPLOY / "kubernetes" / "base" / "deployment.yaml")["spec"]
    assert (chart["replicas"], chart["strategy"]) == (base["replicas"], base["strategy"])
    ours, theirs = chart["template"]["spec"], base["template"]["spec"]
    for name in ("securityContext", "terminationGracePeriodSeconds", "automountServiceAccountToken"):
        assert ours[name] == theirs[name], name
    (container,), (of_base,) = ours["containers"], theirs["containers"]
    names = ("args", "ports", "startupProbe", "livenessProbe", "readinessProbe", "resources", "securityContext")
    for name in (*names, "volumeMounts", "imagePullPolicy", "image"):
        assert container[name] == of_base[name], name


@needs_helm
def test_selectors_choose_the_pods_of_the_release_alone() -> None:
    objects = rendered(CHART / "ci" / "everything-values.yaml")
    pods = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    wanted = {"app.kubernetes.io/name": "stream-consumer", "app.kubernetes.io/instance": "orders-projector"}
    assert wanted.items() <= pods.items()
    for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert objects[kind]["spec"]["selector"] == {"matchLabels": wanted}, kind
    assert objects["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": wanted}
    assert objects["Service"]["spec"]["selector"] == wanted


@needs_helm
def test_the_configuration_is_that_of_the_values_where_the_chart_listens() -> None:
    objects = rendered(CHART / "ci" / "everything-values.yaml")
    config = yaml.safe_load(objects["ConfigMap"]["data"]["config.yaml"])
    values = merged(load(CHART / "values.yaml"), load(CHART / "ci" / "everything-values.yaml"))["config"]
    assert config == {**values, "http": {"host": "0.0.0.0", "port": 9464}}


@needs_helm
def test_a_changed_configuration_rolls_the_deployment_and_nothing_else_does() -> None:
    def checksum(*more: str) -> str:
        objects = rendered(CHART / "ci" / "least-values.yaml", *more)
        found: str = objects["Deployment"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum() == checksum("--set", "replicaCount=3")
    assert checksum() != checksum("--set", "config.leases.duration=20s")


@needs_helm
def test_keda_takes_the_largest_age_of_all_pods_and_scales_down_slowly() -> None:
    objects = rendered(CHART / "ci" / "everything-values.yaml")
    spec = objects["ScaledObject"]["spec"]
    assert spec["scaleTargetRef"] == {"name": objects["Deployment"]["metadata"]["name"]}
    assert "replicas" not in objects["Deployment"]["spec"]  # two must not set it
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 12)
    (trigger,) = spec["triggers"]
    service = objects["Service"]["metadata"]["name"]
    (port,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert trigger["type"] == "metrics-api"
    assert trigger["metadata"] == {
        "url": f"http://{service}.orders.svc.cluster.local:{port['containerPort']}/status.json",
        "format": "json",
        "valueLocation": "scaling.iterator_age_seconds",
        "targetValue": "60",
        "aggregateFromKubeServiceEndpoints": "true",
        "aggregationType": "max",
    }
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 300
    assert [policy["value"] for policy in down["policies"]] == [1]


@needs_helm
@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("terminationGracePeriodSeconds=30", "must be longer by more than five seconds"),
        ("config.shutdown.grace=1m", "must be longer by more than five seconds"),
        ("keda.enabled=true,keda.maxReplicas=1", "below keda.minReplicas"),
        ("unknown=1", "unknown"),
    ],
)
def test_helm_refuses_what_cannot_work(sets: str, said: str) -> None:
    result = template("x", "--values", str(CHART / "ci" / "least-values.yaml"), "--set", sets)
    assert result.returncode != 0
    assert said in result.stderr
