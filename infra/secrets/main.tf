# The secrets that the system has from its first day. Their values are made here, and are neither in a
# plan nor in the state; those of destinations come with the configuration.

locals {
  # Hexadecimal digits, so many of them.
  secrets = { api-key = 48, pseudonym-key = 64 }
}

ephemeral "random_password" "this" {
  for_each = local.secrets

  length           = each.value
  lower            = false
  upper            = false
  special          = true
  override_special = "abcdef"
}

resource "google_secret_manager_secret" "this" {
  for_each = local.secrets

  project             = var.project
  secret_id           = "${var.prefix}${each.key}"
  labels              = var.labels
  deletion_protection = var.deletion_protection

  replication {
    user_managed {
      replicas {
        location = var.region
        dynamic "customer_managed_encryption" {
          for_each = var.kms_key == null ? [] : [var.kms_key]
          content {
            kms_key_name = customer_managed_encryption.value.id
          }
        }
      }
    }
  }
}

resource "google_secret_manager_secret_version" "this" {
  for_each = local.secrets

  secret                 = google_secret_manager_secret.this[each.key].id
  secret_data_wo         = ephemeral.random_password.this[each.key].result
  secret_data_wo_version = "1"
}

# Google's own roles for these two are those of an administrator.
resource "google_project_iam_custom_role" "creator" {
  project     = var.project
  role_id     = replace("${var.prefix}secret_creator", "-", "_")
  title       = "Axiom Flow: make secrets"
  description = "Makes secrets, and reads none."
  permissions = ["secretmanager.secrets.create"]
}

resource "google_project_iam_custom_role" "deleter" {
  project     = var.project
  role_id     = replace("${var.prefix}secret_deleter", "-", "_")
  title       = "Axiom Flow: delete secrets"
  description = "Deletes secrets, and reads none."
  permissions = ["secretmanager.secrets.delete"]
}
