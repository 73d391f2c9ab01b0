# Cloud Scheduler calls a function, with a token that proves who calls.

resource "google_cloud_scheduler_job" "this" {
  project          = var.project
  region           = var.region
  name             = var.name
  description      = "Calls ${var.name}: ${var.schedule}"
  schedule         = var.schedule
  time_zone        = "Etc/UTC"
  attempt_deadline = "${var.timeout_s}s"

  http_target {
    http_method = "POST"
    uri         = var.endpoint

    oidc_token {
      service_account_email = var.timer_account
      audience              = var.audience
    }
  }

  # The next call comes anyway.
  retry_config {
    retry_count = 0
  }
}
