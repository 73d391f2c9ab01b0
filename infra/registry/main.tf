# The repository of the two images. A tag that was pushed stays what it was.

resource "google_artifact_registry_repository" "this" {
  project                = var.project
  location               = var.region
  repository_id          = var.name
  description            = "Images of Axiom Flow"
  format                 = "DOCKER"
  kms_key_name           = one(var.kms_key[*].id)
  labels                 = var.labels
  cleanup_policy_dry_run = false

  docker_config {
    immutable_tags = true
  }

  # Enough to roll back to.
  cleanup_policies {
    id     = "keep-the-newest"
    action = "KEEP"
    most_recent_versions {
      keep_count = 20
    }
  }

  cleanup_policies {
    id     = "delete-the-old"
    action = "DELETE"
    condition {
      tag_state  = "ANY"
      older_than = "7776000s" # 90 days
    }
  }
}
