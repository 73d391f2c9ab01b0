# One topic, and who may publish to it.

locals {
  # Known before it is made, so that a plan tells which subscription is of which topic.
  id = "projects/${var.project}/topics/${google_pubsub_topic.this.name}"
}

resource "google_pubsub_topic" "this" {
  project                    = var.project
  name                       = var.name
  kms_key_name               = one(var.kms_key[*].id)
  labels                     = var.labels
  message_retention_duration = "${var.retention_days * 86400}s"

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }
}

resource "google_pubsub_topic_iam_member" "publisher" {
  for_each = var.publishers

  project = var.project
  topic   = google_pubsub_topic.this.name
  role    = "roles/pubsub.publisher"
  member  = each.value
}

# A copy for a person, for as long as Pub/Sub can keep it; nobody reads it in the daily round.
resource "google_pubsub_subscription" "kept" {
  count = var.keep_copy ? 1 : 0

  project                    = var.project
  name                       = "${google_pubsub_topic.this.name}-kept"
  topic                      = local.id
  labels                     = var.labels
  ack_deadline_seconds       = 60
  message_retention_duration = "${31 * 86400}s"

  expiration_policy {
    ttl = "" # never, however quiet it is
  }
}
