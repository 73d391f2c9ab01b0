# Who read and wrote which data: Google logs changes of configuration by itself, and these if asked.

locals {
  services = toset(["healthcare.googleapis.com", "storage.googleapis.com", "datastore.googleapis.com"])
}

resource "google_project_iam_audit_config" "this" {
  for_each = local.services

  project = var.project
  service = each.key

  dynamic "audit_log_config" {
    for_each = ["DATA_READ", "DATA_WRITE"]
    content {
      log_type = audit_log_config.value
    }
  }
}
