# One subscription that pushes a topic's messages to a function, with a token that proves who pushes.

resource "google_pubsub_subscription" "this" {
  project                    = var.project
  name                       = var.name
  topic                      = var.topic
  labels                     = var.labels
  ack_deadline_seconds       = var.timeout_s
  message_retention_duration = "${var.retention_days * 86400}s"

  push_config {
    push_endpoint = var.endpoint

    oidc_token {
      service_account_email = var.push_account
      audience              = var.audience
    }
  }

  retry_policy {
    minimum_backoff = "${var.backoff_s.minimum}s"
    maximum_backoff = "${var.backoff_s.maximum}s"
  }

  dynamic "dead_letter_policy" {
    for_each = var.dead_letter_topic == null ? [] : [var.dead_letter_topic]
    content {
      dead_letter_topic     = dead_letter_policy.value
      max_delivery_attempts = var.max_attempts
    }
  }

  expiration_policy {
    ttl = "" # never, however quiet it is
  }
}

# Pub/Sub acknowledges here what it has moved to the dead-letter topic.
resource "google_pubsub_subscription_iam_member" "agent" {
  project      = var.project
  subscription = google_pubsub_subscription.this.name
  role         = "roles/pubsub.subscriber"
  member       = var.pubsub_agent
}
