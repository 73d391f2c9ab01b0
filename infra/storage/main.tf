# Two buckets: of what was received, and of what others put down for us to receive.

resource "google_storage_bucket" "received" {
  project                     = var.project
  name                        = "${var.project}-${var.name}-received"
  location                    = var.location
  labels                      = var.labels
  public_access_prevention    = "enforced"
  uniform_bucket_level_access = true
  deletion_policy             = var.protect ? "PREVENT" : "DELETE"
  force_destroy               = !var.protect

  # A reader keeps the generation that it has opened, even when the clean-up deletes it meanwhile.
  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = var.undelete_days * 86400
  }

  dynamic "encryption" {
    for_each = var.kms_key == null ? [] : [var.kms_key]
    content {
      default_kms_key_name = encryption.value.id
    }
  }

  # What is not needed any more is deleted by the clean-up, which knows; age alone does not.
  dynamic "lifecycle_rule" {
    for_each = { for class, days in var.tiers_days : class => days if days != null }
    content {
      action {
        type          = "SetStorageClass"
        storage_class = upper(lifecycle_rule.key)
      }
      condition {
        age            = lifecycle_rule.value
        with_state     = "LIVE"
        matches_prefix = ["received/"]
      }
    }
  }

  # What is transcoded and too large for a function's memory; one that ended has left it.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 1
      with_state     = "LIVE"
      matches_prefix = ["temporary/"]
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 1
      with_state                 = "ARCHIVED"
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }
}

resource "google_storage_bucket" "landing" {
  #checkov:skip=CKV_GCP_78:a file is received as a copy; a newer one of its name is received too
  count = var.landing ? 1 : 0

  project                     = var.project
  name                        = "${var.project}-${var.name}-landing"
  location                    = var.location
  labels                      = var.labels
  public_access_prevention    = "enforced"
  uniform_bucket_level_access = true
  force_destroy               = !var.protect

  soft_delete_policy {
    retention_duration_seconds = var.undelete_days * 86400
  }

  dynamic "encryption" {
    for_each = var.kms_key == null ? [] : [var.kms_key]
    content {
      default_kms_key_name = encryption.value.id
    }
  }

  # Each file was received as a copy on the day it came.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = var.landing_days
    }
  }
}

resource "google_storage_bucket_iam_member" "uploader" {
  for_each = var.landing ? var.uploaders : []

  bucket = google_storage_bucket.landing[0].name
  role   = "roles/storage.objectCreator"
  member = each.key
}

resource "google_storage_notification" "landing" {
  count = var.landing ? 1 : 0

  bucket         = google_storage_bucket.landing[0].name
  topic          = var.landing_topic
  payload_format = "JSON_API_V1"
  event_types    = ["OBJECT_FINALIZE"]
}
