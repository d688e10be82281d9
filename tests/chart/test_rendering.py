"""The chart without a cluster: linted and rendered by Helm 3 and 4, wrong values refused by the field's name."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml
from chart_values import FEDERATION, JOIN, Values, values_of

from testbed.binaries import Binaries
from testbed.chart import HELMS, Object, lint, of_kind, pod_templates, render
from testbed.installation import CHART, ROOT, HelmError, merge, values_for

VARIANTS: dict[str, Values] = {
    "hub": values_of("hub"),
    "home": values_of("home"),
    "both": values_of("both"),
    "hub, ledger elsewhere": values_of("hub", ledger={"enabled": False, "url": "https://ledger.example.org"}),
    "hub, existing claim": values_of("hub", ledger={"persistence": {"existingClaim": "mine", "ephemeral": False}}),
    "hub, ledger on PostgreSQL with TLS": values_of(
        "hub",
        ledger={
            "postgresql": {
                "url": "postgresql://ledger@db.example:5432/ledger?sslmode=require",
                "ownerUrl": "postgresql://owner@db.example:5432/ledger?sslmode=require",
                "existingSecret": "ledger-database",
            },
            "tls": {"existingSecret": "ledger-tls", "clientCaSecret": "clients", "clientNames": ["billing.example"]},
            "linesRetention": "",
        },
    ),
    "home, own Prometheus": values_of(
        "home", prometheus={"url": "https://prometheus.example.org", "existingSecret": "prometheus-token"}
    ),
    "home, existing claims": values_of(
        "home",
        home={"evidence": {"existingClaim": "mine", "ephemeral": False}},
        prometheus={"persistence": {"existingClaim": "samples", "ephemeral": False}},
    ),
    "home, default volumes": values_of(
        "home", home={"evidence": {"ephemeral": False}}, prometheus={"persistence": {"ephemeral": False}}
    ),
    "home, no hook": values_of("home", uninstall={"hook": False}),
}


def args_of(objects: list[Object], component: str) -> list[str]:
    args: list[str] = pod_templates(objects)[component]["spec"]["containers"][0]["args"]
    return args


def names(objects: list[Object], kind: str) -> set[str]:
    return {obj["metadata"]["name"] for obj in of_kind(objects, kind)}


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_linted_and_rendered_by_both_helms(binaries: Binaries, variant: str, version: int) -> None:
    lint(binaries, VARIANTS[variant], version=version)
    assert render(binaries, VARIANTS[variant], version=version)


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_helms_render_the_same(binaries: Binaries, variant: str) -> None:
    def sorted_text(version: int) -> list[str]:
        return sorted(yaml.safe_dump(obj) for obj in render(binaries, VARIANTS[variant], version=version))

    assert sorted_text(3) == sorted_text(4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_has_a_kind_a_name_and_the_charts_labels(binaries: Binaries, variant: str) -> None:
    for obj in render(binaries, VARIANTS[variant]):
        assert obj["apiVersion"]
        assert obj["metadata"]["name"]
        if obj["kind"] != "CustomResourceDefinition":
            assert obj["metadata"]["labels"]["app.kubernetes.io/name"] == "homefed"


# --- roles


def test_each_role_runs_its_processes(binaries: Binaries) -> None:
    def components(role: str) -> set[str]:
        return set(pod_templates(render(binaries, values_of(role))))

    assert components("hub") == {"hub", "ledger", "uninstall"}
    assert components("home") == {"agent", "prometheus", "uninstall"}
    assert components("both") == components("hub") | components("home")


def test_the_ledger_can_run_elsewhere(binaries: Binaries) -> None:
    objects = render(binaries, VARIANTS["hub, ledger elsewhere"])
    assert "ledger" not in pod_templates(objects)
    assert "--ledger-url=https://ledger.example.org" in args_of(objects, "hub")


def test_the_ledger_is_told_its_store_its_keys_and_its_retention(binaries: Binaries) -> None:
    args = args_of(render(binaries, VARIANTS["hub"]), "ledger")
    for expected in (
        "--store=sqlite:/var/lib/homefed/ledger.db",
        "--state=/var/lib/homefed",
        "--home-key-dir=/etc/homefed/home-keys",
        "--lines-retention=400d",
        "--submitter=system:serviceaccount:homefed:homefed-hub",
    ):
        assert expected in args


def test_the_ledger_on_postgresql_takes_passwords_from_a_secret_and_serves_tls(binaries: Binaries) -> None:
    objects = render(binaries, VARIANTS["hub, ledger on PostgreSQL with TLS"])
    args, template = args_of(objects, "ledger"), pod_templates(objects)["ledger"]
    assert "--store=postgresql://ledger@db.example:5432/ledger?sslmode=require" in args
    assert "--store-owner-password-file=/etc/homefed/postgresql/owner-password" in args
    assert "--submitter-cn=billing.example" in args
    assert not [arg for arg in args if "sqlite" in arg or "retention" in arg]
    assert template["spec"]["containers"][0]["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert {"postgresql", "tls", "client-ca", "data"} < volumes.keys()
    hub = args_of(objects, "hub")
    assert "--ledger-url=https://homefed-ledger.homefed.svc:8080" in hub
    assert "--ledger-ca=/etc/homefed/ledger-ca/ca.crt" in hub


def test_client_certificates_need_tls(binaries: Binaries) -> None:
    with pytest.raises(HelmError, match=r"client certificates need ledger\.tls\.existingSecret"):
        render(binaries, values_of("hub", ledger={"tls": {"clientCaSecret": "clients"}}))


def test_a_prometheus_of_ones_own_is_used_with_its_credentials(binaries: Binaries) -> None:
    """The address is told by the environment, so that `homefed doctor meter` in the same pod knows it too."""
    objects = render(binaries, VARIANTS["home, own Prometheus"])
    assert "prometheus" not in pod_templates(objects)
    args = args_of(objects, "agent")
    assert "--prometheus-url=$(HOMEFED_PROMETHEUS_URL)" in args
    assert "--prometheus-auth-dir=$(HOMEFED_PROMETHEUS_AUTH_DIR)" in args
    told = environment(objects)
    assert told["HOMEFED_PROMETHEUS_URL"] == "https://prometheus.example.org"
    assert told["HOMEFED_PROMETHEUS_AUTH_DIR"] == "/etc/homefed/prometheus"
    assert prometheus_secret(objects) == {"secretName": "prometheus-token", "defaultMode": 0o440}


def environment(objects: list[Object]) -> dict[str, str]:
    container = pod_templates(objects)["agent"]["spec"]["containers"][0]
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def prometheus_secret(objects: list[Object]) -> Any:
    volumes = {volume["name"]: volume for volume in pod_templates(objects)["agent"]["spec"]["volumes"]}
    return volumes["prometheus-auth"]["secret"]


def test_only_the_keys_that_are_named_are_mounted(binaries: Binaries) -> None:
    own = {"url": "https://prometheus.example.org", "existingSecret": "shared", "secretKeys": ["tls.crt", "tls.key"]}
    secret = prometheus_secret(render(binaries, values_of("home", prometheus=own)))
    assert secret["items"] == [{"key": "tls.crt", "path": "tls.crt"}, {"key": "tls.key", "path": "tls.key"}]


def test_the_charts_own_prometheus_needs_no_credentials(binaries: Binaries) -> None:
    objects = render(binaries, values_of("home"))
    told = environment(objects)
    assert told["HOMEFED_PROMETHEUS_URL"] == "http://homefed-prometheus.homefed.svc:9090"
    assert "HOMEFED_PROMETHEUS_AUTH_DIR" not in told
    assert not [argument for argument in args_of(objects, "agent") if "auth-dir" in argument]


def test_a_home_that_is_told_of_the_ledger_witnesses_it_with_its_key_and_ca(binaries: Binaries) -> None:
    key = "homefed.io/ledger/garden-lane+0a1b2c3d+AQID"
    told = {"url": "https://ledger.example", "ca": "-----BEGIN CERTIFICATE-----", "key": key}
    objects = render(binaries, values_of("home", home={"ledger": told}))
    wanted = {"--ledger-url=https://ledger.example", "--ledger-ca=/etc/homefed/ledger/ca.crt", f"--ledger-key={key}"}
    assert wanted <= set(args_of(objects, "agent"))
    (container,) = pod_templates(objects)["agent"]["spec"]["containers"]
    assert {"name": "ledger-ca", "mountPath": "/etc/homefed/ledger", "readOnly": True} in container["volumeMounts"]
    secrets = {one["metadata"]["name"]: one for one in of_kind(objects, "Secret")}
    assert secrets["homefed-join"]["stringData"]["ledger-ca"] == told["ca"]
    silent = args_of(render(binaries, values_of("home")), "agent")
    assert not [argument for argument in silent if "ledger" in argument]


def test_existing_claims_are_mounted_and_none_is_made(binaries: Binaries) -> None:
    objects = render(binaries, VARIANTS["home, existing claims"])
    assert not of_kind(objects, "PersistentVolumeClaim")
    for component, claim in (("agent", "mine"), ("prometheus", "samples")):
        volumes = pod_templates(objects)[component]["spec"]["volumes"]
        assert {"claimName": claim} in [volume.get("persistentVolumeClaim") for volume in volumes]


def test_claims_that_the_chart_makes_are_kept_at_uninstall(binaries: Binaries) -> None:
    claims = of_kind(render(binaries, VARIANTS["home, default volumes"]), "PersistentVolumeClaim")
    assert {claim["metadata"]["name"] for claim in claims} == {"homefed-evidence", "homefed-prometheus"}
    for claim in claims:
        assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert "storageClassName" not in claim["spec"]  # the cluster's default


@pytest.mark.parametrize(("storage_class", "expected"), [("", ""), ("fast", "fast")])
def test_a_storage_class_is_passed_on_also_the_empty_one(binaries: Binaries, storage_class: str, expected: str) -> None:
    volume = {"ephemeral": False, "storageClassName": storage_class}
    (claim,) = of_kind(render(binaries, values_of("hub", ledger={"persistence": volume})), "PersistentVolumeClaim")
    assert claim["spec"]["storageClassName"] == expected


def test_names_follow_the_release_except_what_both_sides_must_agree_on(binaries: Binaries) -> None:
    objects = render(binaries, values_of("both"), release="garden")
    assert {"garden-homefed-hub", "garden-homefed-ledger", "garden-homefed-agent"} < names(objects, "Deployment")
    assert {"homefed-mailbox-agent", "homefed-mailbox-hub", "homefed-consumer-objects"} < names(objects, "ClusterRole")
    assert "--release=garden-homefed" in args_of(objects, "agent")


def test_a_hub_and_a_home_as_two_releases_share_a_cluster(binaries: Binaries) -> None:
    """Nothing that is not named after the release is rendered by both roles."""
    hub = render(binaries, values_of("hub"), release="hub")
    home = render(binaries, values_of("home"), release="home")

    def keys(objects: list[Object]) -> set[tuple[str, str, str]]:
        return {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects}

    assert keys(hub).isdisjoint(keys(home))


def test_images_of_different_tags(binaries: Binaries) -> None:
    app_version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    values = values_for("hub", federation_id=FEDERATION)
    del values["image"]["tag"]
    container = pod_templates(render(binaries, values))["hub"]["spec"]["containers"][0]
    assert container["image"] == f"homefed:{app_version}"


def test_the_scrape_configuration_takes_guests_only_and_is_accepted_by_promtool(
    binaries: Binaries, tmp_path: Any
) -> None:
    (config,) = [
        obj for obj in of_kind(render(binaries, values_of("home")), "ConfigMap") if "prometheus.yml" in obj["data"]
    ]
    file = tmp_path / "prometheus.yml"
    text = config["data"]["prometheus.yml"]
    file.write_text(text.replace("/var/run/secrets/kubernetes.io/serviceaccount/token", str(file)))
    subprocess.run(
        [str(binaries.path("promtool")), "check", "config", str(file)], check=True, capture_output=True, timeout=120
    )
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    assert {job["metrics_path"] for job in jobs.values()} == {"/metrics/cadvisor", "/metrics/resource"}
    kept = {"source_labels": ["namespace"], "regex": "homefed-guests", "action": "keep"}
    assert kept in jobs["cadvisor"]["metric_relabel_configs"]


@pytest.mark.parametrize("interval", ["2s", "15s", "1m"])
def test_a_scrape_never_outlasts_its_interval(binaries: Binaries, interval: str, tmp_path: Any) -> None:
    values = values_of("home", prometheus={"scrapeInterval": interval})
    (config,) = [o for o in of_kind(render(binaries, values), "ConfigMap") if "prometheus.yml" in o["data"]]
    file = tmp_path / "prometheus.yml"
    file.write_text(config["data"]["prometheus.yml"].replace("/var/run/secrets/kubernetes.io/serviceaccount", "/etc"))
    command = [str(binaries.path("promtool")), "check", "config", "--syntax-only", str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


# --- CRDs


@pytest.mark.parametrize("role", ["hub", "home", "both"])
def test_crds_are_those_of_the_repository_and_are_kept(binaries: Binaries, role: str) -> None:
    committed = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    wanted = {
        crd["metadata"]["name"]: crd
        for crd in committed
        if role in ("both", crd["metadata"]["labels"]["homefed.io/role"])
    }
    rendered = {
        crd["metadata"]["name"]: crd for crd in of_kind(render(binaries, values_of(role)), "CustomResourceDefinition")
    }
    for crd in rendered.values():
        assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == wanted


def test_contributions_belong_to_homes_and_the_rest_to_hubs(binaries: Binaries) -> None:
    home = names(render(binaries, values_of("home")), "CustomResourceDefinition")
    hub = names(render(binaries, values_of("hub")), "CustomResourceDefinition")
    assert home == {"contributions.homefed.io"}
    assert len(hub) == 7
    assert hub.isdisjoint(home)


# --- wrong values


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("role", ["hub", "both"])
def test_a_hub_without_a_federation_is_refused_with_an_example(binaries: Binaries, role: str, version: int) -> None:
    values = merge(values_of(role), {"federation": {"id": ""}})
    with pytest.raises(HelmError, match=r"federation\.id is required.*--set federation\.id="):
        render(binaries, values, version=version)


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("missing", ["home", "url", "token"])
def test_a_home_without_an_invitation_is_told_where_it_comes_from(
    binaries: Binaries, missing: str, version: int
) -> None:
    values = values_for("home", join={**JOIN, missing: ""})
    with pytest.raises(HelmError, match=rf"home\.join\.{missing} is required.*homefed invite NAME"):
        render(binaries, values, version=version)


@pytest.mark.parametrize("version", HELMS)
def test_a_hub_without_any_ledger_is_refused(binaries: Binaries, version: int) -> None:
    with pytest.raises(HelmError, match=r"ledger\.url is required where ledger\.enabled is false"):
        render(binaries, values_of("hub", ledger={"enabled": False}), version=version)


@pytest.mark.parametrize("version", HELMS)
def test_a_home_without_any_meter_is_refused(binaries: Binaries, version: int) -> None:
    with pytest.raises(HelmError, match=r"prometheus\.url is required where prometheus\.enabled is false"):
        render(binaries, values_of("home", prometheus={"enabled": False}), version=version)


WRONG: dict[str, Values] = {
    "role": {"role": "satellite"},
    "federation": {"federation": {"id": "Garden Lane"}},
    "logLevel": {"logLevel": "loud"},
    "imagePullPolicy": {"home": {"guests": {"imagePullPolicy": "Sometimes"}}},
    "podSecurityVersion": {"home": {"guests": {"podSecurityVersion": "1.30"}}},
    "podCidrs": {"home": {"guests": {"podCidrs": ["10.42.0.0"]}}},
    "priority": {"home": {"guests": {"priority": 10}}},
    "scrapeInterval": {"prometheus": {"scrapeInterval": "15"}},
    "queryTimeout": {"prometheus": {"queryTimeout": "soon"}},
    "secretKeys": {"prometheus": {"secretKeys": ["bearer"]}},
    "size": {"ledger": {"persistence": {"size": "1GB"}}},
    "linesRetention": {"ledger": {"linesRetention": "a year"}},
    "postgresql": {"ledger": {"postgresql": {"url": "postgresql://ledger:secret@db/ledger"}}},
    "url": {"home": {"join": {"url": "http://plain.example.org"}}},
    "nodeSelector": {"hub": {"nodeSelector": {"size": 1}}},
    "timeoutSeconds": {"uninstall": {"timeoutSeconds": 3600}},
    "replicas": {"hub": {"replicas": 2}},
    "leger": {"leger": {"enabled": True}},
}


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_value_is_refused_naming_the_field(binaries: Binaries, field: str, version: int) -> None:
    with pytest.raises(HelmError) as caught:
        render(binaries, merge(values_of("both"), WRONG[field]), version=version)
    assert field in caught.value.stderr


# --- what lies beside the chart


def test_the_kind_configuration_is_one_that_kind_accepts(binaries: Binaries) -> None:
    text = (ROOT / "kind-config.yaml").read_text()
    program = str(binaries.path("kind-config-check"))
    done = subprocess.run([program], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_kind_configuration_has_a_worker_that_the_example_contributes() -> None:
    nodes = yaml.safe_load((ROOT / "kind-config.yaml").read_text())["nodes"]
    contribution = yaml.safe_load((ROOT / "examples" / "contribution.yaml").read_text())
    assert [node["role"] for node in nodes] == ["control-plane", "worker"]
    assert contribution["spec"]["nodeSelector"].items() <= nodes[1]["labels"].items()
