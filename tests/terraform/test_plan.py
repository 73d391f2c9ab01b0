"""What the Terraform of the root would make, held against the code that runs in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.adapters.cloud.environment import CloudEnvironment
from shared.adapters.otlp.settings import OtlpSettings
from shared.adapters.syslog import SyslogSettings
from shared.edge.environment import EdgeEnvironment
from shared.environment import Environment
from shared.identity.settings import IdentitySettings
from shared.messages import Topic
from tests.terraform import planning
from tests.terraform.planning import IMAGES, LEAST, MOST, ROOT, Plan, Planner, environment

HOSPITAL = {"images": IMAGES, "vpn_secret": "known to both ends"}


# A plan of everything takes its time where the machine has others.
pytestmark = pytest.mark.timeout(480)


@pytest.fixture(scope="session")
def planner(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Planner:
    """One for all processes that run tests."""
    planning.needs_terraform()
    shared = tmp_path_factory.getbasetemp()
    return Planner((shared if worker_id == "master" else shared.parent) / "plans")


@pytest.fixture(scope="session")
def most(planner: Planner) -> Plan:
    """A plan with everything that can be asked for, which settled when it was applied."""
    return planner.plan(MOST, apply=True)


@pytest.fixture(scope="session")
def minimal(planner: Planner) -> Plan:
    """The plan of the least there can be."""
    return planner.plan({"images": IMAGES}, ROOT / "infra" / "examples" / "minimal")


def folders() -> set[str]:
    """The entry points that there are."""
    return {path.parent.name for path in (ROOT / "functions").glob("*/main.py")}


def topic_of(folder: str) -> str | None:
    """The topic that an entry point's code says it is fed by."""
    found = re.search(r"Topic\.([A-Z_]+),\n", (ROOT / "functions" / folder / "main.py").read_text())
    return Topic[found[1]] if found else None


class TestRoot:
    def test_settles_so_that_the_second_plan_is_empty(self, most: Plan) -> None:
        """`most` was applied without a cloud, and planned again."""
        assert most.changes

    def test_says_what_is_wrong_with_each_value(self) -> None:
        planning.needs_terraform()
        wrong: dict[str, tuple[Any, str]] = {
            "images": ({**IMAGES, "gateway": "gateway:latest"}, "named by its digest"),
            "gateway": (
                {"host": "kubernetes", "more_ports": [11112]},
                "worker-pool, machines or none",
            ),
            "http": (
                {
                    "people": ["allUsers"],
                    "front": {"kind": "external", "domain": "dicom.example.org"},
                },
                "or requests go past it",
            ),
            "landing": (
                {"uploaders": ["allAuthenticatedUsers"]},
                "allAuthenticatedUsers are nobody",
            ),
            "name": ("much-too-long", "2 to 7 lower-case"),
            "kms_key": ({"id": "my-key"}, "The id of a key"),
            "destinations": ({"pacs": {"at_most_attempts": 3}}, "5 to 100 times"),
            "gemini": ({"location": "europe-west1", "model": "gpt"}, "a model such as gemini-"),
            "perimeter": ({"access_policy": "ours"}, "named by its number"),
            "telemetry": ({"endpoint": "collector:4318"}, "without /v1/traces"),
            "audit_syslog": (
                {"url": "tls://repository", "certificate": "ours"},
                "its private key go together",
            ),
            "identity": ({"issuer": "http://issuer.example.org"}, "An issuer and a public URL"),
            "expiring_buckets": (["gs://images"], "without gs://"),
            "builds": (
                {**MOST["builds"], "plan_account": MOST["builds"]["build_account"]},
                "Three accounts",
            ),
        }
        values = {name: value for name, (value, _) in wrong.items()}
        with pytest.raises(AssertionError) as found:
            planning.tfcheck(ROOT, "--plan", variables={**LEAST, **values})
        said = " ".join(str(found.value).split())
        for _, words in wrong.values():
            assert words in said

    def test_is_formatted(self) -> None:
        planning.needs_terraform()
        ran = subprocess.run(
            [
                "terraform",
                "fmt",
                "-check",
                "-recursive",
                "-diff",
                ROOT / "infra",
                *ROOT.glob("*.tf"),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TF_CLI_CONFIG_FILE": os.devnull},
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


class TestExamples:
    def test_the_least_is_a_gateway_that_is_found_by_name(self, minimal: Plan) -> None:
        (pool,) = minimal.of_type("google_cloud_run_v2_worker_pool").values()
        told = environment(pool)
        assert CloudEnvironment.read(told).project == "hospital-dicom-trial"
        assert told["AXIOM_DNS_NAME"] == "gateway.axiom.internal."
        assert set(minimal.functions()) == folders()

    def test_a_hospital_behind_a_vpn(self, planner: Planner) -> None:
        planned = planner.plan(HOSPITAL, ROOT / "infra" / "examples" / "hospital-vpn")
        (address,) = planned.of_type("google_compute_address").values()
        assert address["address"] == "10.20.0.10"

    def test_several_sites_share_nothing_but_a_store(self, planner: Planner) -> None:
        planned = planner.plan({"images": IMAGES}, ROOT / "infra" / "examples" / "multi-site")
        buckets = {one["name"] for one in planned.of_type("google_storage_bucket").values()}
        assert {"imaging-group-north-received", "imaging-group-south-received"} <= buckets
        assert len(planned.of_type("google_healthcare_dicom_store")) == 1

    def test_a_gateway_on_premises_is_told_all_but_its_name(self, planner: Planner) -> None:
        planned = planner.plan({"images": IMAGES}, ROOT / "infra" / "examples" / "multi-site")
        outputs = planned.document["planned_values"]["outputs"]
        lines = outputs["south_gateway"]["value"].splitlines()
        told = {**dict(line.split("=", 1) for line in lines), "AXIOM_INSTANCE": "south-1"}
        assert CloudEnvironment.read(told).bucket == "imaging-group-south-received"
        edge = EdgeEnvironment.read(told)
        assert edge is not None
        assert str(edge.spool) == "/spool"

    def test_are_all_planned_here(self) -> None:
        names = {path.name for path in (ROOT / "infra" / "examples").iterdir()}
        assert names == {"minimal", "hospital-vpn", "multi-site"}


class TestModules:
    @pytest.mark.parametrize("name", ["front", "gateway", "monitoring", "storage"])
    def test_pass_their_own_tests(self, name: str) -> None:
        planning.needs_terraform()
        assert "Success!" in planning.tfcheck(ROOT / "infra" / name, "--test")


class TestFunctions:
    def test_each_folder_has_a_service_with_an_account_of_its_own(self, most: Plan) -> None:
        assert set(most.functions()) == folders()
        accounts = most.of_type("google_service_account")
        for folder in folders():
            name = folder.replace("_", "-")
            assert f'module.functions["{name}"].google_service_account.this' in accounts

    def test_each_is_fed_by_the_topic_that_its_code_names(self, most: Plan) -> None:
        fed = {
            subscription["push_config"][0]["oidc_token"][0]["audience"]: subscription["topic"]
            for address, subscription in most.of_type("google_pubsub_subscription").items()
            if address.startswith("module.pushes")
        }
        expected = {
            f"axiom-{folder.replace('_', '-')}": f"projects/demo-project/topics/axiom-{topic}"
            for folder in folders()
            if (topic := topic_of(folder)) is not None
        }
        assert {name: fed[name] for name in expected} == expected

    def test_every_topic_of_ours_is_there_and_read_by_somebody(self, most: Plan) -> None:
        topics = {one["name"] for one in most.of_type("google_pubsub_topic").values()}
        read = {one.get("topic") for one in most.of_type("google_pubsub_subscription").values()}
        for topic in Topic:
            assert f"axiom-{topic}" in topics
            assert f"projects/demo-project/topics/axiom-{topic}" in read

    def test_each_can_read_its_settings(self, most: Plan) -> None:
        """What Terraform tells a process is what the process asks for."""
        for service in most.functions().values():
            settings = CloudEnvironment.read(environment(service))
            assert settings.bucket == "demo-project-axiom-received"
            assert Environment.read(environment(service)).platform == "cloud"

    def test_a_token_is_for_one_function_alone(self, most: Plan) -> None:
        for service in most.functions().values():
            settings = CloudEnvironment.read(environment(service))
            assert list(settings.audiences) == [service["name"]] == service["custom_audiences"]

    def test_a_push_may_take_as_long_as_the_request_that_it_makes(self, most: Plan) -> None:
        timeouts = {one["name"]: one["template"][0]["timeout"] for one in most.functions().values()}
        for subscription in most.of_type("google_pubsub_subscription").values():
            for push in subscription["push_config"]:
                name = push["oidc_token"][0]["audience"]
                assert timeouts[name] == f"{subscription['ack_deadline_seconds']}s"


class TestMessages:
    def test_are_never_given_up_without_a_trace(self, most: Plan) -> None:
        subscriptions = most.of_type("google_pubsub_subscription")
        kept = {one["topic"] for one in subscriptions.values() if not one["push_config"]}
        for address, subscription in subscriptions.items():
            assert subscription["expiration_policy"] == [{"ttl": ""}], address
            for policy in subscription["dead_letter_policy"]:
                assert policy["dead_letter_topic"] in kept, address

    def test_stay_in_the_region(self, most: Plan) -> None:
        for topic in most.of_type("google_pubsub_topic").values():
            (policy,) = topic["message_storage_policy"]
            assert policy["allowed_persistence_regions"] == ["europe-west1"]


class TestGrowing:
    def test_by_a_destination_its_bucket_and_a_topic_touches_nothing_else(
        self, planner: Planner, most: Plan, tmp_path: Path
    ) -> None:
        """What was planned is planned as it was."""
        for entry in ROOT.iterdir():
            if entry.suffix == ".tf" or entry.name == "infra":
                (tmp_path / entry.name).symlink_to(entry)
        table = tmp_path / "functions.tf"
        text = table.read_text()
        table.unlink()
        table.write_text(
            text.replace('"object-finalized",\n', '"object-finalized",\n"one-more",\n', 1)
        )
        more = planner.plan(
            {
                **MOST,
                "destinations": {**MOST["destinations"], "research": {}},
                "expiring_buckets": [*MOST["expiring_buckets"], "more-images"],
            },
            tmp_path,
        )
        assert_adds(
            most,
            more,
            r"module\.(lane(s|_pushes)\[\"research\"\]|topics\[\"one-more\"\])\."
            r"|google_storage_bucket_iam_member\.expires_objects\[\"more-images\"\]",
        )
        assert any("one-more" in address for address in more.all())
        assert any("more-images" in address for address in more.all())
        assert any("research" in address for address in more.all())


def assert_adds(before: Plan, after: Plan, pattern: str) -> None:
    """All that is new fits the pattern, and all else is as before."""
    old, new = before.all(), after.all()
    added = set(new) - set(old)
    assert added
    assert all(re.match(pattern, address) for address in added), sorted(added)
    assert {address: new.get(address) for address in old} == old


class TestWhoMayDoWhat:
    def test_nobody_is_everybody(self, most: Plan) -> None:
        text = json.dumps(most.document["planned_values"])
        assert "allUsers" not in text
        assert "allAuthenticatedUsers" not in text

    def test_no_role_is_an_owners(self, most: Plan) -> None:
        for address, (resource, _) in most.all().items():
            assert resource.get("role") not in ("roles/owner", "roles/editor"), address

    def test_roles_of_the_whole_project_are_bound_by_a_condition(self, most: Plan) -> None:
        """But for writing logs, traces and metrics, asking Gemini and making secrets: the project
        as such is asked for these.
        """
        unbound = {
            resource.get("role") or "roles of ours"
            for resource in most.of_type("google_project_iam_member").values()
            if not resource["condition"]
        }
        assert unbound <= {
            "roles/logging.logWriter",
            "roles/monitoring.metricWriter",
            "roles/telemetry.tracesWriter",
            "roles/telemetry.metricsWriter",
            "roles/aiplatform.user",
            "roles of ours",
        }

    def test_gemini_is_asked_by_who_standardizes_alone(
        self, planner: Planner, minimal: Plan
    ) -> None:
        hospital = planner.plan(HOSPITAL, ROOT / "infra" / "examples" / "hospital-vpn")

        def askers(planned: Plan) -> list[str]:
            granted = planned.of_type("google_project_iam_member").items()
            return [at for at, one in granted if one.get("role") == "roles/aiplatform.user"]

        (asker,) = askers(hospital)
        assert 'module.functions["standardize-attributes"].' in asker
        assert askers(minimal) == []
        told = environment(hospital.functions()["standardize_attributes"])
        assert CloudEnvironment.read(told).vertex_model == "gemini-2.5-flash"

    def test_what_is_kept_so_long_is_deleted_by_the_clean_up_alone(
        self, most: Plan, minimal: Plan
    ) -> None:
        granted = {
            address: one["bucket"]
            for address, one in most.of_type("google_storage_bucket_iam_member").items()
            if ".expires_objects[" in address
        }
        assert list(granted.values()) == ["demo-project-cold-images"]
        (grant,) = (
            one["expressions"]
            for one in most.document["configuration"]["root_module"]["resources"]
            if one["address"] == "google_storage_bucket_iam_member.expires_objects"
        )
        assert 'module.functions["clean-up"].member' in grant["member"]["references"]
        role = "google_project_iam_custom_role.expires_objects"
        assert any(one.startswith(role) for one in grant["role"]["references"])
        permissions = most.all()[f"{role}[0]"][0]["permissions"]
        assert sorted(permissions) == ["storage.objects.delete", "storage.objects.list"]
        assert not any("expires_objects" in address for address in minimal.all())

    def test_a_perimeter_holds_whatever_keeps_data(self, most: Plan) -> None:
        (perimeter,) = most.of_type("google_access_context_manager_service_perimeter").values()
        restricted = set(perimeter["status"][0]["restricted_services"])
        needed = {"healthcare.googleapis.com", "storage.googleapis.com", "firestore.googleapis.com"}
        assert needed <= restricted

    def test_reads_of_data_are_logged_where_that_is_asked_for(
        self, most: Plan, minimal: Plan
    ) -> None:
        logged = most.of_type("google_project_iam_audit_config").values()
        assert {one["service"].partition(".")[0] for one in logged} == {
            "datastore",
            "healthcare",
            "storage",
        }
        assert not minimal.of_type("google_project_iam_audit_config")

    def test_a_stage_publishes_what_comes_after_it_alone(self, most: Plan) -> None:
        publishers: dict[str, set[str]] = {}
        for address in most.of_type("google_pubsub_topic_iam_member"):
            found = re.match(r'module\.topics\["(.+)"\]\..*\.publisher\["(.+)"\]', address)
            if found:
                publishers.setdefault(found[1], set()).add(found[2])
        assert {"gateway", "dicomweb"} <= publishers["instance-received"]
        assert not {"apply-rules", "deliver-instance"} & publishers["instance-received"]
        assert not {"gateway", "validate-instance"} & publishers["delivery-requested"]
        assert publishers["dead-letters"] == {"pubsub"}


def gateway_is_told(planned: Plan) -> dict[str, str]:
    """What the file of its environment says on a machine of the gateway."""
    lines = cloud_config_files(planned)["/etc/axiom/gateway.env"].strip().splitlines()
    return dict(line.split("=", 1) for line in lines)


def cloud_config_files(planned: Plan) -> dict[str, str]:
    """What cloud-init writes on a machine of the gateway, by the paths of the files."""
    (template,) = planned.of_type("google_compute_instance_template").values()
    document = yaml.safe_load(template["metadata"]["user-data"])
    return {file["path"]: file["content"] for file in document["write_files"]}


def telling(planned: Plan) -> dict[str, dict[str, str]]:
    """What all processes are told, by their entry points; the gateway's is "gateway"."""
    told = {name: environment(service) for name, service in planned.functions().items()}
    return {**told, "gateway": gateway_is_told(planned)}


class TestTelling:
    def test_all_send_to_the_collector(self, most: Plan) -> None:
        for told in telling(most).values():
            settings = OtlpSettings.read(told)
            assert settings is not None
            assert settings.is_googles
            assert (settings.sampling, settings.metrics_every_s) == (0.25, 60.0)

    def test_googles_own_collector_lets_each_write_and_nobody_read(
        self, planner: Planner, most: Plan, minimal: Plan
    ) -> None:
        def writers(planned: Plan) -> list[tuple[str, str]]:
            return [
                (re.sub(r'.*\["(\S+) .*', r"\1", address), one["role"])
                for address, one in planned.of_type("google_project_iam_member").items()
                if one.get("role", "").startswith("roles/telemetry.")
            ]

        names = {folder.replace("_", "-") for folder in folders()} | {"gateway"}
        roles = ("roles/telemetry.metricsWriter", "roles/telemetry.tracesWriter")
        assert sorted(writers(most)) == sorted((name, role) for name in names for role in roles)
        hospital = planner.plan(HOSPITAL, ROOT / "infra" / "examples" / "hospital-vpn")
        assert writers(hospital) == writers(minimal) == []

    def test_a_collector_in_the_network_is_reached_by_all(
        self, planner: Planner, most: Plan
    ) -> None:
        hospital = planner.plan(HOSPITAL, ROOT / "infra" / "examples" / "hospital-vpn")
        for service in hospital.functions().values():
            assert service["template"][0]["vpc_access"]
        assert not most.functions()["validate_instance"]["template"][0]["vpc_access"]

    def test_audit_messages_are_kept_by_all_and_sent_by_the_clean_up(
        self, most: Plan, minimal: Plan
    ) -> None:
        for name, told in telling(most).items():
            assert told["AXIOM_AUDIT_SYSLOG"] == "tls://repository.example.org:6514"
            files = {one for one in told if one.startswith("AXIOM_AUDIT_SYSLOG_")}
            assert len(files) == (3 if name == "clean_up" else 0)
        assert most.functions()["clean_up"]["template"][0]["vpc_access"]
        assert not minimal.functions()["clean_up"]["template"][0]["vpc_access"]

    def test_a_file_of_a_secret_is_where_its_variable_says(self, most: Plan) -> None:
        service = most.functions()["clean_up"]
        told, (template,) = environment(service), service["template"]
        volumes = {one["name"]: one["secret"][0] for one in template["volumes"]}
        mounted = {
            f"{one['mount_path']}/{volumes[one['name']]['items'][0]['path']}"
            for one in template["containers"][0]["volume_mounts"]
        }
        assert mounted == {
            path for name, path in told.items() if name.startswith("AXIOM_AUDIT_SYSLOG_")
        }
        readers = {
            address
            for address, one in most.of_type("google_secret_manager_secret_iam_member").items()
            if one["secret_id"] in {volume["secret"] for volume in volumes.values()}
        }
        assert len(readers) == 3
        assert all(address.startswith('module.functions["clean-up"]') for address in readers)

    def test_nobody_is_told_of_what_is_not_asked_for(self, minimal: Plan) -> None:
        for service in minimal.functions().values():
            told = environment(service)
            assert OtlpSettings.read(told) is None
            assert SyslogSettings.read(told) is None
            assert IdentitySettings.read(told).oidc_audiences == ()


class TestIdentity:
    def test_tokens_are_taken_by_all_whom_people_call(self, most: Plan) -> None:
        """The gateway's too: listeners with `user_identity.tokens` check them as the API does."""
        for name, told in telling(most).items():
            settings = IdentitySettings.read(told)
            is_called = name in ("api", "dicomweb", "gateway")
            assert set(settings.oidc_audiences) == (
                {"axiom-flow", "our-client"} if is_called else set()
            )
            if is_called:
                assert settings.oidc_issuer == "https://issuer.example.org"
                assert settings.admin_email == "it@example.org"

    def test_people_sign_in_at_the_api_alone(self, most: Plan) -> None:
        for name, told in telling(most).items():
            settings = IdentitySettings.read(told)
            assert bool(settings.oidc_client_id) == (name == "api")
            assert bool(settings.oidc_client_secret) == bool(settings.public_url) == (name == "api")


class TestFront:
    def test_nobody_asks_the_services_but_identity_aware_proxy(self, most: Plan) -> None:
        callers = {
            at: one["member"]
            for at, one in most.of_type("google_cloud_run_v2_service_iam_member").items()
            if ".person[" in at
        }
        assert len(callers) == 2
        assert all("@gcp-sa-iap." in member for member in callers.values())
        let_in = most.of_type("google_iap_web_region_backend_service_iam_member").values()
        assert {one["member"] for one in let_in} == {"group:it@example.org"}

    def test_requests_do_not_go_past_it(self, most: Plan) -> None:
        for name in ("api", "dicomweb"):
            assert most.functions()[name]["ingress"] == "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"


class TestBuilds:
    def test_a_deployment_waits_for_a_person_and_nothing_else_does(self, most: Plan) -> None:
        triggers = {one["name"]: one for one in most.of_type("google_cloudbuild_trigger").values()}
        assert set(triggers) == {"axiom-plan", "axiom-build", "axiom-deploy"}
        waits = [name for name, one in triggers.items() if one["approval_config"]]
        assert waits == ["axiom-deploy"]

    def test_each_runs_a_file_that_takes_what_it_is_given(self, most: Plan) -> None:
        for trigger in most.of_type("google_cloudbuild_trigger").values():
            file = trigger["filename"] or trigger["git_file_source"][0]["path"]
            declared = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["substitutions"]
            assert set(trigger["substitutions"]) <= set(declared), file

    def test_a_pull_request_has_an_account_of_its_own(self, most: Plan) -> None:
        accounts = {
            one["name"]: one["service_account"]
            for one in most.of_type("google_cloudbuild_trigger").values()
        }
        assert len(set(accounts.values())) == 3
        assert "axiom-plan@" in accounts["axiom-plan"]


class TestPrivacy:
    def test_buckets_are_private_and_encrypted_with_the_key(self, most: Plan) -> None:
        for bucket in most.of_type("google_storage_bucket").values():
            assert bucket["public_access_prevention"] == "enforced"
            assert bucket["uniform_bucket_level_access"] is True
            assert bucket["encryption"][0]["default_kms_key_name"] == MOST["kms_key"]["id"]

    def test_whoever_keeps_data_may_use_the_key(self, most: Plan) -> None:
        """One that may not cannot make what is to be encrypted: a machine's disk, say."""
        services = {
            address.split('"')[1]
            for address in most.of_type("google_kms_crypto_key_iam_member")
            if address.startswith("module.services.")
        }
        assert services >= {
            f"{name}.googleapis.com"
            for name in (
                *("artifactregistry", "compute", "firestore", "healthcare", "pubsub", "run"),
                *("secretmanager", "storage"),
            )
        }

    def test_whatever_can_have_labels_has_them(self, most: Plan) -> None:
        for change in most.changes:
            after = change["change"]["after"]
            if change["type"].startswith(("google_project", "google_compute_forwarding")):
                continue
            for name in ("labels", "user_labels"):
                if name in after and "notification_channel" not in change["type"]:
                    assert after[name], change["address"]
                    assert after[name]["app"] == "axiom-flow", change["address"]

    def test_machines_have_no_address_on_the_internet(self, most: Plan) -> None:
        for template in most.of_type("google_compute_instance_template").values():
            assert all(not one["access_config"] for one in template["network_interface"])

    def test_no_value_of_a_secret_is_in_the_plan(self, most: Plan) -> None:
        versions = most.of_type("google_secret_manager_secret_version")
        assert len(versions) == 2
        for version in versions.values():
            assert version["secret_data"] is None
            assert version["secret_data_wo"] is None


class TestGateway:
    def test_starts_on_a_machine_as_cloud_init_reads_it(self, most: Plan) -> None:
        told = gateway_is_told(most)
        assert CloudEnvironment.read(told).project == "demo-project"
        assert Environment.read(told).dimse_host == "0.0.0.0"
        unit = cloud_config_files(most)["/etc/systemd/system/axiom-gateway.service"]
        for port in (11112, 2762, 11113):
            assert f" --publish={port}:{port} " in unit
        assert unit.count(IMAGES["gateway"]) == 2

    def test_lets_modalities_in_at_each_of_its_ports_and_no_others(self, most: Plan) -> None:
        rules = most.of_type("google_compute_forwarding_rule")
        rule = rules["module.gateway.google_compute_forwarding_rule.this[0]"]
        assert set(rule["ports"]) == {"11112", "2762", "11113"}
        firewalls = most.of_type("google_compute_firewall")
        (allowed,) = firewalls["module.network.google_compute_firewall.modalities[0]"]["allow"]
        assert set(allowed["ports"]) == {"11112", "2762", "11113"}


class TestText:
    def test_every_variable_and_output_says_what_it_is(self) -> None:
        for path in [*ROOT.glob("*.tf"), *(ROOT / "infra").rglob("*.tf")]:
            text = path.read_text(encoding="utf-8")
            for block in re.findall(r'^(?:variable|output) "\w+" \{\n(.*?)^\}', text, re.S | re.M):
                assert "description" in block, path

    def test_versions_of_providers_are_pinned(self) -> None:
        for path in [*ROOT.glob("*.tf"), *(ROOT / "infra").rglob("*.tf")]:
            for version in re.findall(
                r'source = "hashicorp/\S+", version = "(.+?)"', path.read_text()
            ):
                assert re.fullmatch(r"~> \d+\.\d+", version), path
