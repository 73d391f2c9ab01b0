variables {
  project    = "demo"
  name       = "axiom"
  emails     = []
  thresholds = {}
  labels     = {}
}

run "here" {
  command = plan
  variables {
    gateway_host = "worker-pool"
  }

  assert {
    condition     = length(google_logging_metric.edges) == 0 && length(google_monitoring_alert_policy.gateway_down) == 1
    error_message = "a gateway here is watched by Google's own metrics"
  }
  assert {
    condition     = contains(keys(google_monitoring_alert_policy.this), "listener-fault")
    error_message = "a listener that cannot listen is told of, for the gateway goes on"
  }
}

run "on_premises" {
  command = plan
  variables {
    gateway_host = "none"
  }

  assert {
    condition     = alltrue([for name in ["edge-silent", "edge-waiting", "edge-fault"] : contains(keys(google_monitoring_alert_policy.this), name)])
    error_message = "somebody is told of a gateway on premises that is silent, behind, or at fault"
  }
  assert {
    condition     = google_monitoring_alert_policy.this["edge-silent"].conditions[0].condition_threshold[0].aggregations[0].group_by_fields[0] == "metric.label.edge"
    error_message = "each gateway counts for itself"
  }
}
