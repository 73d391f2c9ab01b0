"""What somebody may do, and the roles that bundle it. A permission that is not given is refused."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Permission(StrEnum):
    """One thing that somebody may do; custom roles are made of these."""

    CONFIGURATION_READ = "configuration:read"
    CONFIGURATION_WRITE = "configuration:write"
    RULES_WRITE = "rules:write"  # rulesets, schedules, crosswalk maps, standardizers
    RULES_TRY = "rules:try"  # check and dry-run candidates; past Instances need patients:read too
    OPERATIONS_READ = "operations:read"  # UIDs, states and counts, no patient's Values
    OPERATIONS_ACT = "operations:act"
    PEERS_ASK = "peers:ask"  # echo, probe, copy a crosswalk's table
    PATIENTS_READ = "patients:read"
    INSTANCES_STORE = "instances:store"
    METRICS_READ = "metrics:read"
    AUDIT_READ = "audit:read"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"  # users, roles and others' keys, up to what one may do oneself


ALL = frozenset(Permission)

ADMIN = "admin"

_VIEWER = frozenset(
    {Permission.CONFIGURATION_READ, Permission.OPERATIONS_READ, Permission.METRICS_READ}
)

BUILT_IN_ROLES: Mapping[str, frozenset[Permission]] = {
    ADMIN: ALL,
    "operator": _VIEWER
    | {
        Permission.OPERATIONS_ACT,
        Permission.PATIENTS_READ,
        Permission.PEERS_ASK,
        Permission.RULES_TRY,
        Permission.INSTANCES_STORE,
    },
    "editor": _VIEWER
    | {
        Permission.RULES_WRITE,
        Permission.RULES_TRY,
        Permission.PATIENTS_READ,
        Permission.PEERS_ASK,
    },
    "viewer": _VIEWER,
    "uploader": frozenset({Permission.INSTANCES_STORE}),
}
