# A line around the project that its data does not cross, whoever asks and with whichever role. Calls
# between the services within it pass; others need an access level.

locals {
  # What keeps or carries patients' data and the secrets to it.
  restricted = [
    "aiplatform.googleapis.com",
    "artifactregistry.googleapis.com",
    "firestore.googleapis.com",
    "healthcare.googleapis.com",
    "logging.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
  ]
  resources = ["projects/${var.project_number}"]
}

resource "google_access_context_manager_service_perimeter" "this" {
  parent         = "accessPolicies/${var.access_policy}"
  name           = "accessPolicies/${var.access_policy}/servicePerimeters/${replace(var.name, "-", "_")}_axiom_flow"
  title          = "Axiom Flow ${var.name}"
  description    = "The project of Axiom Flow, ${var.enforced ? "enforced" : "as a dry run: what it would refuse is logged"}"
  perimeter_type = "PERIMETER_TYPE_REGULAR"

  # Without being enforced it has a plan to be and nothing else.
  use_explicit_dry_run_spec = !var.enforced

  dynamic "status" {
    for_each = var.enforced ? [1] : []
    content {
      resources           = local.resources
      restricted_services = local.restricted
      access_levels       = var.access_levels
    }
  }

  dynamic "spec" {
    for_each = var.enforced ? [] : [1]
    content {
      resources           = local.resources
      restricted_services = local.restricted
      access_levels       = var.access_levels
    }
  }
}
