# What a person looks at, and what calls a person. Log lines are counted where Google has no metric.

locals {
  # A time series alone is chosen by resource and metric; this picks those of ours.
  ours = "resource.labels.subscription_id=starting_with(\"${var.name}-\")"

  has_edges = var.gateway_host == "none"
  edges = local.has_edges ? {
    silent = "Seconds since a gateway on premises last gave a sign of life"
    oldest = "Seconds that the oldest message has waited on a gateway on premises"
  } : {}

  # What Google calls that which a gateway here runs on.
  runs_on = { worker-pool = "cloud_run_worker_pool", machines = "gce_instance" }

  channels = [for channel in google_monitoring_notification_channel.this : channel.id]
}

resource "google_monitoring_notification_channel" "this" {
  for_each = var.emails

  project      = var.project
  display_name = "Axiom Flow: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
  user_labels  = var.labels
}

resource "google_logging_metric" "exceptions" {
  project     = var.project
  name        = "${var.name}/exceptions"
  description = "Entries that came into the exception log"
  filter      = "jsonPayload.message=\"recorded in the exception log\" OR jsonPayload.message=\"refused\""

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
    labels {
      key         = "code"
      value_type  = "STRING"
      description = "What kind of exception"
    }
  }
  label_extractors = { code = "EXTRACT(jsonPayload.code)" }
}

resource "google_logging_metric" "deliveries" {
  project     = var.project
  name        = "${var.name}/deliveries"
  description = "Deliveries that were tried, by destination and what became of them"
  filter      = "jsonPayload.logger=\"shared.pipeline.deliver\" AND jsonPayload.destination:*"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
    labels {
      key         = "destination"
      value_type  = "STRING"
      description = "Name of the destination"
    }
    labels {
      key         = "state"
      value_type  = "STRING"
      description = "What became of it"
    }
  }
  label_extractors = {
    destination = "EXTRACT(jsonPayload.destination)"
    state       = "EXTRACT(jsonPayload.message)"
  }
}

# The clean-up tells once a minute how each gateway on premises is (shared/pipeline/edges.py).
resource "google_logging_metric" "edges" {
  for_each = local.edges

  project     = var.project
  name        = "${var.name}/edge-${each.key}"
  description = each.value
  filter      = "jsonPayload.message=\"a gateway on premises\" AND resource.labels.service_name=\"${var.name}-clean-up\""

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "DISTRIBUTION"
    unit        = "s"
    labels {
      key         = "edge"
      value_type  = "STRING"
      description = "Name of the gateway (AXIOM_INSTANCE)"
    }
  }
  value_extractor  = "EXTRACT(jsonPayload.${each.key}_s)"
  label_extractors = { edge = "EXTRACT(jsonPayload.edge)" }

  bucket_options {
    exponential_buckets {
      num_finite_buckets = 40
      growth_factor      = 1.5
      scale              = 1
    }
  }
}

resource "google_logging_metric" "edge_faults" {
  count = local.has_edges ? 1 : 0

  project     = var.project
  name        = "${var.name}/edge-faults"
  description = "Minutes in which a gateway on premises said that something is wrong with it"
  filter      = "jsonPayload.message=\"a gateway on premises\" AND jsonPayload.fault!=\"\" AND resource.labels.service_name=\"${var.name}-clean-up\""

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
    labels {
      key         = "edge"
      value_type  = "STRING"
      description = "Name of the gateway (AXIOM_INSTANCE)"
    }
  }
  label_extractors = { edge = "EXTRACT(jsonPayload.edge)" }
}

# A gateway with a listener that cannot listen goes on with the others, and is not started anew for it.
# On a machine the line is a text within the entry of the container.
resource "google_logging_metric" "listener_faults" {
  count = local.has_edges ? 0 : 1

  project     = var.project
  name        = "${var.name}/listener-faults"
  description = "Lines of the gateway that tell of listeners which cannot listen"
  filter      = "jsonPayload.message:\"some listeners cannot listen\" AND resource.type=\"${local.runs_on[var.gateway_host]}\"${var.gateway_host == "worker-pool" ? " AND resource.labels.worker_pool_name=\"${var.name}-gateway\"" : ""}"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
  }
}

# Cloud Run writes a line for every request, and a push that went well says nothing with it. What
# people ask of the API and of DICOMweb stays.
resource "google_logging_project_exclusion" "pushes" {
  project     = var.project
  name        = "${var.name}-pushes-that-went-well"
  description = "Requests of Pub/Sub and Scheduler that were answered with 2xx"
  filter = join(" AND ", [
    "resource.type=\"cloud_run_revision\"",
    "logName=\"projects/${var.project}/logs/run.googleapis.com%2Frequests\"",
    "resource.labels.service_name=~\"^${var.name}-\"",
    "NOT resource.labels.service_name=(\"${var.name}-api\" OR \"${var.name}-dicomweb\")",
    "httpRequest.status<300",
  ])
}

locals {
  policies = {
    exceptions = {
      title     = "Many exceptions"
      severity  = "WARNING"
      what      = "More than ${var.thresholds.exceptions_per_5_min} entries came into the exception log in 5 minutes. Look at them: GET /api/v1/exceptions, grouped by code. A destination that is down shows as destination-unavailable; when it is back, retry them in bulk."
      filter    = "resource.type=\"cloud_run_revision\" AND metric.type=\"logging.googleapis.com/user/${google_logging_metric.exceptions.name}\""
      threshold = var.thresholds.exceptions_per_5_min
      duration  = "0s"
      period    = "300s"
      aligner   = "ALIGN_SUM"
      reducer   = "REDUCE_SUM"
    }
    queue-age = {
      title     = "Messages wait"
      severity  = "WARNING"
      what      = "The oldest message of a subscription waits for more than ${var.thresholds.queue_age_s} s. If it is one of delivery-requested, a destination does not take what it is sent: GET /api/v1/destinations/NAME/state. Else look at the logs of the function that the subscription pushes to."
      filter    = "resource.type=\"pubsub_subscription\" AND metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND ${local.ours} AND NOT resource.labels.subscription_id=ends_with(\"-kept\")"
      threshold = var.thresholds.queue_age_s
      duration  = "300s"
      period    = "60s"
      aligner   = "ALIGN_MAX"
      reducer   = "REDUCE_MAX"
    }
    dead-letters = {
      title     = "Dead letters"
      severity  = "ERROR"
      what      = "A message was tried as often as its subscription allows. It goes round again while the settings' retry budget lasts, and is in the exception log then; a copy is kept for 31 days in the subscription ${var.name}-dead-letters-kept."
      filter    = "resource.type=\"pubsub_subscription\" AND metric.type=\"pubsub.googleapis.com/subscription/dead_letter_message_count\" AND ${local.ours}"
      threshold = 0
      duration  = "0s"
      period    = "300s"
      aligner   = "ALIGN_SUM"
      reducer   = "REDUCE_SUM"
    }
    delivery-latency = {
      title     = "Deliveries are slow"
      severity  = "WARNING"
      what      = "One delivery of twenty takes longer than ${var.thresholds.delivery_s} s from push to answer. A slow destination or a slow line to it; GET /api/v1/deliveries tells which."
      filter    = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}-deliver-instance\" AND metric.type=\"run.googleapis.com/request_latencies\""
      threshold = var.thresholds.delivery_s * 1000
      duration  = "300s"
      period    = "300s"
      aligner   = "ALIGN_PERCENTILE_95"
      reducer   = "REDUCE_MAX"
    }
    function-errors = {
      title     = "A function fails"
      severity  = "ERROR"
      what      = "A function answered 500 more than ${var.thresholds.errors_per_5_min} times in 5 minutes. That is a bug or a permission that is missing, not a destination that is down (503). Its log has one line with the type of the error and where it was."
      filter    = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=starting_with(\"${var.name}-\") AND metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code=\"500\""
      threshold = var.thresholds.errors_per_5_min
      duration  = "0s"
      period    = "300s"
      aligner   = "ALIGN_SUM"
      reducer   = "REDUCE_SUM"
    }
  }

  edge_policies = local.has_edges ? {
    edge-silent = {
      title     = "A gateway on premises is silent"
      severity  = "ERROR"
      what      = "It has given no sign of life for ${var.thresholds.edge_silent_s} s: its link is down, or it is. With its link down it goes on receiving while its disk has room. On its machine ask GET /health of its health port. docs/edge.md."
      filter    = "resource.type=\"cloud_run_revision\" AND metric.type=\"logging.googleapis.com/user/${google_logging_metric.edges["silent"].name}\""
      threshold = var.thresholds.edge_silent_s
      duration  = "0s"
      period    = "300s"
      aligner   = "ALIGN_PERCENTILE_50"
      reducer   = "REDUCE_MAX"
    }
    edge-waiting = {
      title     = "Instances wait on a gateway on premises"
      severity  = "WARNING"
      what      = "The oldest has waited for more than ${var.thresholds.edge_waiting_s} s: the link is down or too slow for what comes. GET /metrics of the API tells how much waits and how much of the disk is free (axiom_edge_...)."
      filter    = "resource.type=\"cloud_run_revision\" AND metric.type=\"logging.googleapis.com/user/${google_logging_metric.edges["oldest"].name}\""
      threshold = var.thresholds.edge_waiting_s
      duration  = "0s"
      period    = "300s"
      aligner   = "ALIGN_PERCENTILE_50"
      reducer   = "REDUCE_MAX"
    }
    edge-fault = {
      title     = "Something is wrong with a gateway on premises"
      severity  = "CRITICAL"
      what      = "It says what: the line \"a gateway on premises\" in the log of ${var.name}-clean-up, field fault. Above all a disk that is full, with which it refuses what comes (A700H)."
      filter    = "resource.type=\"cloud_run_revision\" AND metric.type=\"logging.googleapis.com/user/${google_logging_metric.edge_faults[0].name}\""
      threshold = 0
      duration  = "0s"
      period    = "300s"
      aligner   = "ALIGN_SUM"
      reducer   = "REDUCE_SUM"
    }
  } : {}

  listener_policies = local.has_edges ? {} : {
    listener-fault = {
      title     = "A listener of the gateway cannot listen"
      severity  = "ERROR"
      what      = "Modalities that send to it are refused; other listeners go on. The line \"some listeners cannot listen\" in the gateway's log names it and says why: a secret of its TLS that is not there, a port that two want, a host that is not the container's. Mend the configuration; the gateway follows by itself."
      filter    = "resource.type=\"${local.runs_on[var.gateway_host]}\" AND metric.type=\"logging.googleapis.com/user/${google_logging_metric.listener_faults[0].name}\""
      threshold = 0
      duration  = "0s"
      period    = "300s"
      aligner   = "ALIGN_SUM"
      reducer   = "REDUCE_SUM"
    }
  }

  # Each gateway uses CPU time for as long as it is there.
  alive = {
    worker-pool = "resource.type=\"${local.runs_on.worker-pool}\" AND resource.labels.worker_pool_name=\"${var.name}-gateway\" AND metric.type=\"run.googleapis.com/container/cpu/utilizations\""
    machines    = "resource.type=\"${local.runs_on.machines}\" AND metric.type=\"compute.googleapis.com/instance/uptime\" AND metadata.user_labels.component=\"gateway\""
  }
  aligners = { worker-pool = "ALIGN_PERCENTILE_99", machines = "ALIGN_RATE" }
}

resource "google_monitoring_alert_policy" "this" {
  for_each = merge(local.policies, local.edge_policies, local.listener_policies)

  project               = var.project
  display_name          = "Axiom Flow: ${each.value.title}"
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = local.channels
  user_labels           = var.labels

  conditions {
    display_name = each.value.title
    condition_threshold {
      filter          = each.value.filter
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.threshold
      duration        = each.value.duration
      aggregations {
        alignment_period     = each.value.period
        per_series_aligner   = each.value.aligner
        cross_series_reducer = each.value.reducer
        group_by_fields = (
          strcontains(each.value.filter, "pubsub_subscription") ? ["resource.label.subscription_id"]
          : strcontains(each.key, "function") ? ["resource.label.service_name"]
          : startswith(each.key, "edge") ? ["metric.label.edge"]
          : []
        )
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = each.value.what
  }

  alert_strategy {
    auto_close = "86400s"
  }
}

resource "google_monitoring_alert_policy" "gateway_down" {
  count = var.gateway_host == "none" ? 0 : 1

  project               = var.project
  display_name          = "Axiom Flow: The gateway is down"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = local.channels
  user_labels           = var.labels

  conditions {
    display_name = "No sign of life for 5 minutes"
    condition_absent {
      filter   = local.alive[var.gateway_host]
      duration = "300s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = local.aligners[var.gateway_host]
        cross_series_reducer = "REDUCE_COUNT"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "No gateway runs: modalities cannot send. What was received is safe, and goes on. Look at the last lines of its log, then at the last deployment."
  }
}

resource "google_monitoring_dashboard" "this" {
  project = var.project
  dashboard_json = templatefile("${path.module}/dashboard.json", {
    name       = var.name
    exceptions = google_logging_metric.exceptions.name
    deliveries = google_logging_metric.deliveries.name
    ours       = replace(local.ours, "\"", "\\\"")
  })
}
