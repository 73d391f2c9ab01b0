# One topic, and the topic where its messages end that were tried too often.

locals {
  # Known before they are made, so that a plan tells which subscription is of which topic.
  id             = "projects/${var.project}/topics/${google_pubsub_topic.this.name}"
  dead_letter_id = "projects/${var.project}/topics/${google_pubsub_topic.dead_letter.name}"
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

resource "google_pubsub_topic" "dead_letter" {
  project                    = var.project
  name                       = "${var.name}-dead-letter"
  kms_key_name               = one(var.kms_key[*].id)
  labels                     = var.labels
  message_retention_duration = "${31 * 86400}s"

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }
}

resource "google_pubsub_topic_iam_member" "dead_letter" {
  project = var.project
  topic   = google_pubsub_topic.dead_letter.name
  role    = "roles/pubsub.publisher"
  member  = var.pubsub_agent
}

# Nobody reads it in the daily round: it keeps a copy for a person, for as long as Pub/Sub can.
resource "google_pubsub_subscription" "kept" {
  project                    = var.project
  name                       = "${google_pubsub_topic.dead_letter.name}-kept"
  topic                      = local.dead_letter_id
  labels                     = var.labels
  ack_deadline_seconds       = 60
  message_retention_duration = "${31 * 86400}s"

  expiration_policy {
    ttl = "" # never, however quiet it is
  }
}
