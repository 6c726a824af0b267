"""Everything in deploy/ and the Dockerfile, checked by the validators of its platform without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore.session
import kubernetes_validate
import pytest
import yaml
from botocore.validate import ParamValidator

from consumer.domain.errors import (
    DependencyError,
    HandlerImportError,
    MisconfiguredResource,
    PermissionDenied,
    ResourceMissing,
)
from consumer.operate.emf import EmfLines
from consumer.operate.metrics import Metrics
from consumer.worker.retrying import START_DEADLINE
from tests.support.iam_policies import actions, policy, require_least_privilege

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes" / "base"
GRACE = 25  # shutdown.grace of every configuration here

LEAST_ACTIONS = {statement["Sid"]: actions(statement) for statement in policy("policy.json")}
OF_THE_STACK = LEAST_ACTIONS | {statement["Sid"]: actions(statement) for statement in policy("s3-policy.json")}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


# --- the image


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(line.split(None, 1)[0], " ".join(line.split(None, 1)[1].split())) for line in lines]


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def test_dockerfile_has_only_known_instructions_and_two_stages() -> None:
    known = {"ARG", "FROM", "ENV", "WORKDIR", "RUN", "COPY", "LABEL", "VOLUME", "USER", "EXPOSE", "STOPSIGNAL"}
    known |= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions()} <= known
    assert sum(name == "FROM" for name, _ in instructions()) == 2


def test_dockerfile_base_can_be_pinned_and_is_never_latest() -> None:
    first = instructions()[0]
    assert first == ("ARG", "BASE_IMAGE=python:3.13-slim")
    for name, value in instructions():
        if name == "FROM":
            assert value.startswith("${BASE_IMAGE} AS ")
        assert ":latest" not in value


def test_dockerfile_commands_are_in_exec_form() -> None:
    stage = dict(final_stage())
    assert json.loads(stage["ENTRYPOINT"]) == ["stream-consumer"]
    assert json.loads(stage["CMD"]) == ["run", "--config", "/etc/stream-consumer/config.yaml"]
    command = stage["HEALTHCHECK"].partition("CMD ")[2]
    assert json.loads(command) == ["stream-consumer", "health", "--config", "/etc/stream-consumer/config.yaml"]


def test_dockerfile_runs_as_a_fixed_user_and_leaves_no_build_tools() -> None:
    stage = final_stage()
    users = [value for name, value in stage if name == "USER"]
    assert users == ["10001:10001"]
    after_user = stage[stage.index(("USER", users[0])) :]
    assert not {name for name, _ in after_user} & {"RUN", "COPY"}
    assert not any(name == "RUN" and "pip" in value for name, value in stage)
    assert all("--from=builder" in value for name, value in stage if name == "COPY")


def test_dockerfile_installs_only_what_is_locked() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"curl|wget|sudo|chmod 777|--trusted-host|ADD http", text)
    installs = [value for name, value in instructions() if name == "RUN" and '"install"' in value]
    assert installs
    for command in installs:
        assert '"--require-hashes"' in command or '"--no-index"' in command


def test_dockerfile_environment_and_labels() -> None:
    environment = " ".join(value for name, value in final_stage() if name == "ENV")
    for variable in ("PYTHONUNBUFFERED=1", "PYTHONFAULTHANDLER=1", "PYTHONDONTWRITEBYTECODE=1"):
        assert variable in environment
    labels = " ".join(value for name, value in final_stage() if name == "LABEL")
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels


def test_dockerignore_lets_in_what_the_build_copies_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for name, value in instructions():
        if name == "COPY" and "--from" not in value:
            copied |= set(value.split()[:-1])
    assert allowed == copied


# --- systemd


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_unit_verifies_without_a_warning(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / "stream-consumer@.service").read_text()
    assert "ExecStart=/opt/stream-consumer/bin/stream-consumer run --config /etc/stream-consumer/%i.yaml\n" in text
    unit = tmp_path / "stream-consumer@orders.service"
    unit.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={shutil.which('true')}", text))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    # Only what concerns this unit: the machine's own units are not ours to judge.
    complaints = [line for line in result.stderr.splitlines() if "stream-consumer" in line]
    assert not complaints
    assert result.returncode == 0, result.stderr


def test_systemd_unit_settings() -> None:
    text = (DEPLOY / "systemd" / "stream-consumer@.service").read_text()
    settings = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z][A-Za-z]+=", line))
    assert settings["Type"] == "notify"
    assert settings["NotifyAccess"] == "main"
    assert settings["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert settings["Restart"] == "on-failure"
    codes = {
        error.exit_code for error in (PermissionDenied, MisconfiguredResource, HandlerImportError, ResourceMissing)
    }
    assert settings["RestartPreventExitStatus"] == " ".join(map(str, sorted(codes)))
    assert DependencyError.exit_code not in codes
    # Handler, credentials of two loops, four steps and the session, each with its own deadline.
    assert settings["TimeoutStartSec"] == "10min"
    assert 8 * START_DEADLINE < 600
    assert settings["KillMode"] == "mixed"
    assert int(settings["WatchdogSec"]) >= 20
    assert int(settings["TimeoutStopSec"]) > GRACE
    for name in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "RestrictNamespaces"):
        assert settings[name] == "yes"
    assert settings["ProtectSystem"] == "strict"
    # It hides /proc/stat, which the process metrics need.
    assert "ProcSubset" not in settings


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_judges_the_exposure_of_the_unit_as_low() -> None:
    unit = DEPLOY / "systemd" / "stream-consumer@.service"
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


# --- Kubernetes

MANIFESTS = ["serviceaccount", "deployment", "poddisruptionbudget", "networkpolicy"]


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_kubernetes_manifests_are_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(load(KUBERNETES / f"{name}.yaml"), version, strict=True)


def test_kubernetes_config_map_is_valid() -> None:
    kustomization = load(KUBERNETES / "kustomization.yaml")
    (generator,) = kustomization["configMapGenerator"]
    data = {name: (KUBERNETES / name).read_text() for name in generator["files"]}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
    kubernetes_validate.validate(config_map, kubernetes_validate.latest_version(), strict=True)
    assert list(data) == ["config.yaml"]


def test_kustomization_names_every_file_and_the_optional_one_stays_out() -> None:
    kustomization = load(KUBERNETES / "kustomization.yaml")
    assert kustomization["kind"] == "Kustomization"
    assert sorted(kustomization["resources"]) == sorted(f"{name}.yaml" for name in MANIFESTS)
    monitor = load(DEPLOY / "kubernetes" / "podmonitor" / "podmonitor.yaml")
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")


def pod() -> dict[str, Any]:
    template: dict[str, Any] = load(KUBERNETES / "deployment.yaml")["spec"]["template"]
    return template


def test_pod_is_restricted() -> None:
    spec = pod()["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert container["resources"]["requests"]
    assert "memory" in container["resources"]["limits"]
    assert "latest" not in container["image"]


def test_pod_lives_and_ends_properly() -> None:
    spec = pod()["spec"]
    (container,) = spec["containers"]
    assert spec["terminationGracePeriodSeconds"] > GRACE
    assert "lifecycle" not in container
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    (port,) = container["ports"]
    assert port["containerPort"] == load(KUBERNETES / "config.yaml")["http"]["port"]


def test_selectors_match_the_pods() -> None:
    labels = pod()["metadata"]["labels"].items()
    selectors = [
        load(KUBERNETES / "deployment.yaml")["spec"]["selector"]["matchLabels"],
        load(KUBERNETES / "poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        load(KUBERNETES / "networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
        load(DEPLOY / "kubernetes" / "podmonitor" / "podmonitor.yaml")["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() == labels


# --- ECS


def cloudformation(name: str) -> dict[str, Any]:
    """The template with intrinsic functions read as ``{function: value}``."""

    class Loader(yaml.SafeLoader):
        pass

    def intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return {suffix: loader.construct_scalar(node)}
        if isinstance(node, yaml.SequenceNode):
            return {suffix: loader.construct_sequence(node, deep=True)}
        return {suffix: loader.construct_mapping(node, deep=True)}

    Loader.add_multi_constructor("!", intrinsic)
    template: dict[str, Any] = yaml.load((DEPLOY / "ecs" / name).read_text(), Loader)  # a subclass of SafeLoader
    return template


def test_task_definition_fits_the_service_model() -> None:
    definition = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())
    model = botocore.session.get_session().get_service_model("ecs")
    report = ParamValidator().validate(definition, model.operation_model("RegisterTaskDefinition").input_shape)
    assert not report.has_errors(), report.generate_report()


def test_task_definition_settings() -> None:
    definition = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())
    (container,) = definition["containerDefinitions"]
    assert definition["requiresCompatibilities"] == ["FARGATE"]
    assert GRACE < container["stopTimeout"] <= 120
    assert container["readonlyRootFilesystem"] is True
    assert container["user"] == "10001:10001"
    assert container["linuxParameters"]["initProcessEnabled"] is False
    assert container["logConfiguration"]["logDriver"] == "awslogs"
    assert container["healthCheck"]["command"][:3] == ["CMD", "stream-consumer", "health"]


def test_template_and_task_definition_say_the_same() -> None:
    (plain,) = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())["containerDefinitions"]
    resources = cloudformation("service.yaml")["Resources"]
    (container,) = resources["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    assert container["StopTimeout"] == plain["stopTimeout"]
    assert container["User"] == plain["user"]
    assert container["HealthCheck"]["Command"] == plain["healthCheck"]["command"]
    assert [entry["Name"] for entry in container["Environment"]] == [entry["name"] for entry in plain["environment"]]


def test_template_and_task_definition_are_for_the_same_architecture() -> None:
    template = cloudformation("service.yaml")
    platform = template["Resources"]["TaskDefinition"]["Properties"]["RuntimePlatform"]
    assert platform == {"CpuArchitecture": {"Ref": "Architecture"}, "OperatingSystemFamily": "LINUX"}
    plain = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())["runtimePlatform"]
    parameter = template["Parameters"]["Architecture"]
    assert plain == {"cpuArchitecture": parameter["Default"], "operatingSystemFamily": "LINUX"}
    model = botocore.session.get_session().get_service_model("ecs")
    assert set(parameter["AllowedValues"]) == set(model.shape_for("CPUArchitecture").enum)


def test_the_stack_scales_on_reading_and_rings_on_lag_or_silence() -> None:
    resources = cloudformation("service.yaml")["Resources"]
    alarms = {
        name: resource["Properties"] for name, resource in resources.items() if resource["Type"].endswith("::Alarm")
    }
    out, inwards, lag = alarms["Behind"], alarms["CaughtUp"], alarms["Lag"]
    assert out["AlarmActions"] == [{"Ref": "ScaleOut"}]
    assert inwards["AlarmActions"] == [{"Ref": "ScaleIn"}]
    assert out["MetricName"] == inwards["MetricName"] == "stream_consumer_iterator_age_seconds"
    assert inwards["Threshold"] < out["Threshold"]
    assert lag["Threshold"] == {"Ref": "LagAlarmSeconds"}
    assert inwards["Period"] * inwards["EvaluationPeriods"] >= 3 * 300  # three of the longest leases
    # Silence adds and removes nobody, and rings.
    assert out["TreatMissingData"] == inwards["TreatMissingData"] == "notBreaching"
    assert (lag["MetricName"], lag["TreatMissingData"]) == ("stream_consumer_lag_seconds", "breaching")
    steps = [
        resources[name]["Properties"]["StepScalingPolicyConfiguration"]["StepAdjustments"]
        for name in ("ScaleOut", "ScaleIn")
    ]
    assert [step["ScalingAdjustment"] for (step,) in steps] == [2, -1]


def test_a_stuck_key_rings_as_soon_as_in_prometheus() -> None:
    """Both count from the same metric and the same age, and neither needs a second look at it."""
    alarm, lag = (cloudformation("service.yaml")["Resources"][name]["Properties"] for name in ("StuckKey", "Lag"))
    groups = load(DEPLOY / "prometheus" / "alerts.yaml")["groups"]
    (rule,) = (rule for group in groups for rule in group["rules"] if rule.get("alert") == "StreamConsumerStuckKey")
    assert f"({alarm['MetricName']}[2m])) > {alarm['Threshold']}" in rule["expr"]
    assert "for" not in rule
    assert alarm["Period"] * alarm["EvaluationPeriods"] <= 60
    assert alarm["AlarmActions"] == lag["AlarmActions"]


def test_the_alarms_ask_for_metrics_that_the_daemon_logs() -> None:
    assert load(DEPLOY / "ecs" / "config.yaml")["logging"]["emf"] is True
    metrics = Metrics()
    shard = metrics.shard("s")
    shard.lag_seconds = shard.iterator_age_seconds = shard.failing_seconds = 1.0
    lines: list[Any] = []
    EmfLines(metrics, "a", "t", lambda line: not lines.append(line)).write(0.0)
    (directive,) = lines[0]["_aws"]["CloudWatchMetrics"]
    logged = {metric["Name"] for metric in directive["Metrics"]}
    asking = [
        resource["Properties"]
        for resource in cloudformation("service.yaml")["Resources"].values()
        if resource["Type"].endswith("::Alarm") and resource["Properties"]["Namespace"] == directive["Namespace"]
    ]
    assert {alarm["MetricName"] for alarm in asking} <= logged
    assert len(asking) == 4
    for alarm in asking:
        assert directive["Dimensions"] == [[dimension["Name"] for dimension in alarm["Dimensions"]]]
        assert [dimension["Value"]["Ref"] for dimension in alarm["Dimensions"]] == ["Application", "SourceTable"]


def test_every_variable_of_the_ecs_configuration_is_set_by_the_task() -> None:
    text = (DEPLOY / "ecs" / "config.yaml").read_text()
    needed = set(re.findall(r"\$\{([A-Z_]+)\}", text))
    (plain,) = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())["containerDefinitions"]
    assert needed == {entry["name"] for entry in plain["environment"]}


def test_cloudformation_template_lints() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from cfnlint.runner import main; main()", str(DEPLOY / "ecs" / "service.yaml")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_lease_table_has_the_key_schema_and_survives_the_stack() -> None:
    table = cloudformation("service.yaml")["Resources"]["LeaseTable"]
    keys = [(key["AttributeName"], key["KeyType"]) for key in table["Properties"]["KeySchema"]]
    assert keys == [("pk", "HASH"), ("sk", "RANGE")]
    assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == "Retain"
    assert table["Properties"]["DeletionProtectionEnabled"] is True
    assert table["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


# --- IAM


def test_the_task_role_has_the_daemons_policy_and_nothing_else() -> None:
    role = cloudformation("service.yaml")["Resources"]["TaskRole"]["Properties"]
    (consume,) = role["Policies"]
    assert "ManagedPolicyArns" not in role
    require_least_privilege(consume["PolicyDocument"]["Statement"], OF_THE_STACK)


# --- Prometheus and the configurations


def shard_metrics() -> set[str]:
    """The names of all metrics, also of those that appear with a shard's first measurement."""
    metrics = Metrics()
    shard = metrics.shard("s")
    shard.lag_seconds = shard.oldest_unsettled_seconds = shard.retention_headroom_seconds = 0
    shard.checkpoint_age_seconds = shard.iterator_age_seconds = 0
    return set(re.findall(r"^# TYPE (\S+)", metrics.render()[0].decode(), re.MULTILINE))


def test_alerts_use_metrics_that_exist() -> None:
    groups = load(DEPLOY / "prometheus" / "alerts.yaml")["groups"]
    exposed = shard_metrics()
    for rule in groups[0]["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        names = set(re.findall(r"stream_consumer_\w+", rule["expr"]))
        assert names, rule["alert"]
        assert names <= exposed


@pytest.mark.parametrize("path", ["kubernetes/base/config.yaml", "ecs/config.yaml"])
def test_configurations_fit_their_containers(path: str) -> None:
    config = load(DEPLOY / path)
    assert config["http"] == {"host": "0.0.0.0", "port": 9464}
    assert config["handler"]["path"] == "/app"
    assert config["shutdown"]["grace"] == f"{GRACE}s"


@pytest.mark.parametrize("path", sorted(path.relative_to(ROOT).as_posix() for path in DEPLOY.rglob("*.yaml")))
def test_yaml_files_have_no_tabs_and_end_in_a_newline(path: str) -> None:
    text = (ROOT / path).read_text()
    assert "\t" not in text
    assert text.endswith("\n")
