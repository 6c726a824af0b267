"""``deploy/kubernetes`` as kustomize renders it: two applications in one namespace, and none that forgot its label."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
INSTANCE = "app.kubernetes.io/instance"
# What the API server accepts as the value of a label.
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders them, is not installed")

Object = dict[str, Any]


def rendered(folder: str) -> list[Object]:
    result = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


@pytest.fixture(scope="module")
def example() -> list[Object]:
    return rendered("example")


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """By the instance they belong to."""
    return {one["metadata"]["labels"][INSTANCE]: one for one in objects if one["kind"] == kind}


def test_the_example_is_valid(example: list[Object]) -> None:
    for one in example:
        if one["kind"] != "PodMonitor":  # its schema belongs to an operator
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_two_applications_in_a_namespace_share_neither_names_nor_pods(example: list[Object]) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in example]
    assert len(set(names)) == len(names) == 12
    assert {one["metadata"]["namespace"] for one in example} == {"orders"}
    pods = {
        instance: one["spec"]["template"]["metadata"]["labels"]
        for instance, one in of_kind(example, "Deployment").items()
    }
    assert set(pods) == {"orders-projector", "orders-search-index"}
    selectors = {
        "Deployment": lambda spec: spec["selector"],
        "PodDisruptionBudget": lambda spec: spec["selector"],
        "NetworkPolicy": lambda spec: spec["podSelector"],
        "PodMonitor": lambda spec: spec["selector"],
    }
    for kind, selector in selectors.items():
        for instance, one in of_kind(example, kind).items():
            wanted = selector(one["spec"])["matchLabels"]
            chosen = [other for other, labels in pods.items() if wanted.items() <= labels.items()]
            assert chosen == [instance], kind


def test_each_deployment_has_its_own_configuration_and_account(example: list[Object]) -> None:
    maps, accounts = of_kind(example, "ConfigMap"), of_kind(example, "ServiceAccount")
    for instance, deployment in of_kind(example, "Deployment").items():
        spec = deployment["spec"]["template"]["spec"]
        (mounted,) = [volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume]
        assert mounted == maps[instance]["metadata"]["name"]
        assert yaml.safe_load(maps[instance]["data"]["config.yaml"])["application"] == instance
        assert spec["serviceAccountName"] == accounts[instance]["metadata"]["name"]
        for constraint in spec["topologySpreadConstraints"]:
            assert constraint["labelSelector"]["matchLabels"][INSTANCE] == instance


def test_an_overlay_that_sets_no_instance_is_refused_by_kubernetes() -> None:
    for one in rendered("base"):
        if one["kind"] == "ConfigMap":
            continue
        assert not LABEL_VALUE.fullmatch(one["metadata"]["labels"][INSTANCE]), one["kind"]
