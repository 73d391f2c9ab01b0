"""What each route asks of who calls it: the one table. A route that is not in it is refused to
everybody, and fails a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.config.kinds import KINDS
from shared.identity.permissions import Permission as P

# Blueprints that need no key: the health of the system, the API's documentation, which a browser
# opens without one, and signing in. They tell nothing of patients or of the configuration.
OPEN_BLUEPRINTS: Final = frozenset({"health", "documentation", "login"})

# Kinds of configuration entities that an editor of rules may write.
_OF_RULES: Final = frozenset(
    {"rulesets", "schedules", "crosswalk_maps", "standardizers", "vocabularies"}
)

_ANYBODY_SIGNED_IN: Final[frozenset[P]] = frozenset()

_BY_PERMISSIONS: Final[Mapping[frozenset[P], str]] = {
    _ANYBODY_SIGNED_IN: """
        me.read_me me.list_own_keys me.create_own_key me.rotate_own_key me.revoke_own_key
        session.start_session session.log_out
    """,
    frozenset({P.CONFIGURATION_READ}): """
        configuration.read_settings configuration.export_configuration
        configuration.list_missing_secrets
        ruleset_rules.list_ruleset_rules ruleset_rules.read_ruleset_rule
        versions.list_versions versions.read_version versions.diff_versions
        versions.read_ruleset_history rules.read_shadow_report crosswalks.status
    """,
    frozenset({P.CONFIGURATION_WRITE}): """
        configuration.replace_settings configuration.patch_settings
    """,
    frozenset({P.CONFIGURATION_WRITE, P.RULES_WRITE}): """
        configuration.import_configuration versions.roll_back
    """,
    frozenset({P.RULES_WRITE}): """
        ruleset_rules.create_ruleset_rule ruleset_rules.replace_ruleset_rule
        ruleset_rules.patch_ruleset_rule ruleset_rules.delete_ruleset_rule
    """,
    frozenset({P.RULES_TRY}): "rules.validate_ruleset",
    # Past Instances, and Values of the file that is sent, are in what they answer.
    frozenset({P.RULES_TRY, P.PATIENTS_READ}): """
        rules.dry_run_candidate rules.dry_run_ruleset
    """,
    frozenset({P.PATIENTS_READ}): """
        rules.explain crosswalks.lookup standardize.read_review standardize.list_synonyms
    """,
    frozenset({P.PATIENTS_READ, P.PEERS_ASK}): "data_browser.browse",
    frozenset({P.PEERS_ASK}): "crosswalks.sync sources.check destinations.check",
    frozenset({P.OPERATIONS_READ}): """
        exceptions.list_exceptions exceptions.read_exception
        instances.list_instances instances.read_instance instances.list_deliveries
        instances.list_study_instances
        studies.list_studies studies.read_study
        standardize.list_reviews standardize.standardize_report
        jobs.list_jobs jobs.read_job clean_ups.list_clean_ups
        destinations.list_states destinations.read_state metrics.read_metrics
        sources.list_states sources.read_state data_browser.list_searchable_sources
        pulls.read_pull pulls.list_pull_rows
        reconciliations.list_reconciliations reconciliations.read_reconciliation
    """,
    frozenset({P.OPERATIONS_ACT}): """
        exceptions.retry_exception exceptions.archive_exception exceptions.discard_exception
        exceptions.bulk_exceptions
        instances.reprocess_instance instances.release_instance instances.reroute_instance
        instances.discard_instance instances.bulk_instances
        studies.complete_study reconciliations.start_reconciliation
        standardize.approve_review standardize.correct_review standardize.reject_review
        standardize.revert_review standardize.ask_review_again standardize.delete_synonym
        sources.poll pulls.start_pull pulls.pause_pull pulls.resume_pull
    """,
    frozenset({P.INSTANCES_STORE}): """
        dicomweb.store_instances dicomweb.store_study_instances uploads.begin_upload
    """,
    frozenset({P.AUDIT_READ}): "audit.list_audit audit.export_audit",
    frozenset({P.USERS_READ}): """
        users.list_users users.read_user users.list_user_keys
        users.list_roles users.read_role users.list_permissions
    """,
    frozenset({P.USERS_WRITE}): """
        users.create_user users.replace_user users.delete_user users.end_user_sessions
        users.create_user_key users.rotate_user_key users.revoke_user_key
        users.create_role users.replace_role users.delete_role
    """,
}


def _of_kinds() -> dict[str, frozenset[P]]:
    needs: dict[str, frozenset[P]] = {}
    for kind in KINDS:
        writes = P.RULES_WRITE if kind.name in _OF_RULES else P.CONFIGURATION_WRITE
        for path in kind.paths:
            called = path.replace("-", "_")
            for action in ("list", "read", "references"):
                needs[f"configuration.{action}_{called}"] = frozenset({P.CONFIGURATION_READ})
            for action in ("create", "replace", "patch", "delete"):
                needs[f"configuration.{action}_{called}"] = frozenset({writes})
    return needs


# By endpoint: `blueprint.function`.
NEEDS: Final[Mapping[str, frozenset[P]]] = {
    **{
        endpoint: permissions
        for permissions, endpoints in _BY_PERMISSIONS.items()
        for endpoint in endpoints.split()
    },
    **_of_kinds(),
}


def is_open(endpoint: str | None) -> bool:
    """Whether the route needs no key."""
    return endpoint is not None and endpoint.partition(".")[0] in OPEN_BLUEPRINTS
