"""The Helm chart: Kubernetes, KEDA and our programs take what each example makes of it."""

from __future__ import annotations

import copy
import functools
import importlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm
import kubernetes_validate
import pytest
import yaml

import warp
from commands.cli import cli
from coordinator.autoscale import BUSY_PART, desired_workers
from coordinator.cli import command as coordinator_command
from warp.config import Settings, load
from workers.cli import command as worker_command

EXAMPLES = sorted((helm.CHART / "examples").glob("*.yaml"))
KUBERNETES = "1.32"
Manifest = dict[str, Any]

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


@functools.cache
def made_of(example: Path) -> list[Manifest]:
    return helm.template("--values", example)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a release has it."""
    directory = tmp_path_factory.mktemp("chart")
    done = helm.run("package", helm.CHART, "--destination", directory)
    assert done.returncode == 0, done.stderr
    return directory / f"cartridge-warp-{warp.__version__}.tgz"


def of_kind(example: Path, *kinds: str) -> list[Manifest]:
    return [manifest for manifest in made_of(example) if manifest["kind"] in kinds]


def container(deployment: Manifest) -> Manifest:
    [found] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def settings_of(example: Path, deployment: Manifest, directory: Path) -> Settings:
    """What its container would read, by the flags, variables and files that it has."""
    program, *arguments = container(deployment)["args"]
    command = worker_command if program == "warp-worker" else coordinator_command
    [config] = of_kind(example, "ConfigMap")
    text = config["data"]["config.yaml"].replace("/run/secrets", str(directory))
    (directory / "source").mkdir(exist_ok=True)
    (directory / "source" / "url").write_text("postgresql://u:s3cret@elsewhere/shop")
    (directory / "config.yaml").write_text(text)
    planted = {
        "CARTRIDGE_WARP_REDIS_URL": "rediss://u:s3cret@redis:6380/0",
        "DESTINATION_URL": "postgresql://u:s3cret@warehouse/warehouse",
        "SOURCE_URL": ("mysql" if "type: mysql" in text else "mongodb")
        + "://u:s3cret@elsewhere/shop",
    }
    environment = {
        entry["name"]: entry["value"] if "value" in entry else planted[entry["name"]]
        for entry in container(deployment)["env"]
    } | {"CARTRIDGE_WARP_CONFIG": str(directory / "config.yaml")}
    return load(None, environment, command.make_context(program, arguments).params)


@each_example
def test_the_package_holds_all_that_the_folder_does(example: Path, packed: Path) -> None:
    done = helm.run("template", "shop", packed, "--namespace", "warp", "--values", example)
    assert done.returncode == 0, done.stderr
    assert [made for made in yaml.safe_load_all(done.stdout) if made] == made_of(example)


# -- what the cluster takes


@each_example
def test_helm_finds_nothing_wrong_with_it(example: Path) -> None:
    done = helm.run("lint", helm.CHART, "--strict", "--values", example)
    assert done.returncode == 0, done.stdout + done.stderr


@each_example
def test_kubernetes_takes_everything_it_makes(example: Path) -> None:
    for manifest in made_of(example):
        if manifest["apiVersion"].startswith(("keda.sh/", "monitoring.coreos.com/")):
            continue  # kinds that Kubernetes itself does not know
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_kubernetes_would_not_take_anything() -> None:
    wrong = copy.deepcopy(of_kind(EXAMPLES[0], "Deployment")[0])
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@each_example
def test_everything_of_one_kind_has_a_name_of_its_own(example: Path) -> None:
    names = [(m["kind"], m["metadata"]["name"]) for m in made_of(example)]
    assert len(names) == len(set(names))
    assert max(len(name) for _, name in names) <= 63


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("wroker.replicas", "3"),
        ("worker.replicas", "none"),
        ("worker.replica", "3"),
        ("mode", "both"),
        ("autoscaling.kind", "kedaa"),
        ("autoscaling.minReplicas", "0"),
        ("redis.address", "redis"),
        ("image.digest", "latest"),
        ("config.schemas", "shop"),
        ("secrets.A-B.secret", "x"),
        ("perSchema.shop.resources.cpu", "1"),
    ],
)
def test_a_wrong_value_is_refused_by_name(key: str, value: str) -> None:
    done = helm.run(
        *("template", "shop", helm.CHART, "--values", EXAMPLES[2], "--set", f"{key}={value}")
    )
    assert done.returncode != 0
    assert key.split(".")[0] in done.stderr


def test_values_without_a_source_are_refused() -> None:
    done = helm.run("template", "shop", helm.CHART, "--set", "redis.address=redis:6379")
    assert done.returncode != 0
    assert "source" in done.stderr


# -- what our programs take


@each_example
def test_our_programs_take_their_arguments_and_their_configuration(
    example: Path, tmp_path: Path
) -> None:
    for deployment in of_kind(example, "Deployment"):
        settings = settings_of(example, deployment, tmp_path)
        assert settings.prometheus.enabled
        assert settings.prometheus.port == 8080
        assert settings.coordination.redis_url is not None
        for hook in container(deployment).get("lifecycle", {}).values():
            program, command, *arguments = hook["exec"]["command"]
            assert program == "cartridge-warp"
            found = cli.get_command(cli.make_context(program, [command]), command)
            assert found is not None
            assert found.make_context(command, list(arguments)).params["here"]


@each_example
def test_no_secret_is_in_a_manifest(example: Path, tmp_path: Path) -> None:
    """Given by value it would be in the release's history too."""
    values = yaml.safe_load(example.read_text())
    for deployment in of_kind(example, "Deployment"):
        by_name = {entry["name"]: entry for entry in container(deployment)["env"]}
        for name in values.get("secrets", {}):
            assert "secretKeyRef" in by_name[name]["valueFrom"]
        secrets = settings_of(example, deployment, tmp_path).secrets
        assert any("s3cret" in secret for secret in secrets)
        assert "s3cret" not in yaml.safe_dump(made_of(example))


def test_fleets_of_single_schemas_share_nothing_that_has_one_owner(tmp_path: Path) -> None:
    example = helm.CHART / "examples" / "per-schema.yaml"
    seen: dict[str, Settings] = {}
    for deployment in of_kind(example, "Deployment"):
        settings = settings_of(example, deployment, tmp_path)
        [schema] = settings.schemas
        before = seen.setdefault(schema.name, settings)
        # A coordinator and its workers mean the same.
        assert before.coordination.namespace == settings.coordination.namespace
        assert before.destination.metadata_schema == settings.destination.metadata_schema
    assert set(seen) == {"orders", "Kunden & Co", "products"}
    for owned in (
        [s.coordination.namespace for s in seen.values()],
        [s.destination.metadata_schema for s in seen.values()],
        [s.source.options.slot for s in seen.values()],  # type: ignore[attr-defined]
        [s.source.options.publication for s in seen.values()],  # type: ignore[attr-defined]
    ):
        assert len(set(owned)) == 3


def test_schemas_whose_names_look_alike_stay_apart() -> None:
    schemas = ["a_b", "a-b", "A.B", "x" * 40, "x" * 41]
    values = [f"config.schemas[{n}].name={name}" for n, name in enumerate(schemas)]
    made = helm.template(
        *("--values", helm.CHART / "examples" / "minimal.yaml", "--set", "mode=single"),
        *("--set", ",".join(values).replace("A.B", "A\\.B")),
    )
    names = [m["metadata"]["name"] for m in made if m["kind"] == "Deployment"]
    assert len(set(names)) == 2 * len(schemas)


# -- scaling


def scaled(example: Path) -> Iterator[tuple[Manifest, Manifest]]:
    """Each autoscaler with the deployment that it scales."""
    deployments = {m["metadata"]["name"]: m for m in of_kind(example, "Deployment")}
    for scaler in of_kind(example, "ScaledObject", "HorizontalPodAutoscaler"):
        yield scaler, deployments[scaler["spec"]["scaleTargetRef"]["name"]]


def slots_of(deployment: Manifest) -> int:
    args = container(deployment)["args"]
    given = dict(argument.removeprefix("--").split("=") for argument in args[1:])
    return int(given["processes"]) * int(given["slots"])


def test_autoscalers_ask_for_as_many_pods_as_our_own_formula() -> None:
    seen = 0
    for example in EXAMPLES:
        for scaler, deployment in scaled(example):
            seen += 1
            slots = slots_of(deployment)
            spec = scaler["spec"]
            if scaler["kind"] == "ScaledObject":
                per_pod = float(spec["triggers"][0]["metadata"]["listLength"])
                assert per_pod == math.floor(slots * BUSY_PART)  # KEDA takes whole numbers only
            else:
                target = spec["metrics"][0]["external"]["target"]["averageValue"]
                per_pod = float(target.removesuffix("m")) / 1000
                assert per_pod == pytest.approx(slots * BUSY_PART)
            for demand in range(100):
                pods = math.ceil(round(demand / per_pod, 9))
                ours = desired_workers(demand, slots=slots)
                assert pods >= ours
                if per_pod == slots * BUSY_PART:
                    assert pods == ours
            assert "replicas" not in deployment["spec"]
    assert seen == 4


def test_keda_reads_the_demand_of_the_fleet_that_it_scales(tmp_path: Path) -> None:
    for example in EXAMPLES:
        for scaler, deployment in scaled(example):
            if scaler["kind"] != "ScaledObject":
                continue
            namespace = settings_of(example, deployment, tmp_path).coordination.namespace
            trigger = scaler["spec"]["triggers"][0]["metadata"]
            assert trigger["listName"] == f"cw:{{{namespace}}}:demand"


def test_keda_takes_its_objects() -> None:
    models = importlib.import_module("cloudcoil.models.keda.v1alpha1")  # seconds of CPU
    seen = []
    for example in EXAMPLES:
        for manifest in of_kind(example, "ScaledObject", "TriggerAuthentication"):
            getattr(models, manifest["kind"]).model_validate(manifest)
            seen.append(manifest["kind"])
    assert {"ScaledObject", "TriggerAuthentication"} == set(seen)
    wrong = copy.deepcopy(of_kind(EXAMPLES[1], "ScaledObject")[0])
    wrong["spec"]["minReplicaCount"] = "two"
    with pytest.raises(ValueError, match="minReplicaCount"):
        models.ScaledObject.model_validate(wrong)


# -- how pods run


@each_example
def test_pods_can_do_no_more_than_they_must(example: Path) -> None:
    for deployment in of_kind(example, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container(deployment)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        is_worker = container(deployment)["args"][0] == "warp-worker"
        talks = "--pod-deletion-cost" in container(deployment)["args"]
        assert pod["automountServiceAccountToken"] is talks
        assert not (is_worker and talks)
        assert pod["enableServiceLinks"] is False
    rights = [rule for role in of_kind(example, "Role") for rule in role["rules"]]
    assert rights in ([], [{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}])


@each_example
def test_a_worker_has_time_for_its_drain_and_its_last_batches(example: Path) -> None:
    for deployment in of_kind(example, "Deployment"):
        hooks = container(deployment).get("lifecycle")
        if hooks is not None:
            drain = float(hooks["preStop"]["exec"]["command"][-1].removesuffix("s"))
            grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            assert grace >= drain + 30  # 25 s to hand over, 5 s to end


@each_example
def test_whatever_selects_pods_selects_those_of_one_deployment(example: Path) -> None:
    deployments = of_kind(example, "Deployment")
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in deployments]

    def chosen(labels: Mapping[str, str]) -> int:
        return sum(labels.items() <= pod.items() for pod in pods)

    for manifest in made_of(example):
        match manifest["kind"]:
            case "Deployment" | "PodDisruptionBudget":
                assert chosen(manifest["spec"]["selector"]["matchLabels"]) == 1
            case "Service":
                assert chosen(manifest["spec"]["selector"]) == 1
            case "NetworkPolicy":
                assert chosen(manifest["spec"]["podSelector"]["matchLabels"]) == len(pods)
            case "ServiceMonitor":
                wanted = manifest["spec"]["selector"]["matchLabels"].items()
                services = of_kind(example, "Service")
                assert all(wanted <= s["metadata"]["labels"].items() for s in services)


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == warp.__version__
