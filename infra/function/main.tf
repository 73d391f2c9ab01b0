# One function: a Cloud Run service with a service account of its own, which may do what the function
# does and nothing else.

locals {
  # Where the process finds each file.
  files = { for name, secret in var.secret_files : name => "/secrets/${secret}/file.pem" }
}

resource "google_service_account" "this" {
  project      = var.project
  account_id   = var.name
  display_name = "Axiom Flow: ${var.entry_point}"
  description  = "What functions/${var.entry_point} acts as."
}

resource "google_cloud_run_v2_service" "this" {
  project             = var.project
  location            = var.region
  name                = var.name
  description         = "functions/${var.entry_point}"
  labels              = var.labels
  ingress             = var.ingress
  custom_audiences    = [var.name]
  deletion_protection = var.deletion_protection

  template {
    service_account                  = google_service_account.this.email
    timeout                          = "${var.limits.timeout_s}s"
    max_instance_request_concurrency = var.limits.concurrency
    encryption_key                   = one(var.kms_key[*].id)
    labels                           = var.labels

    scaling {
      min_instance_count = var.limits.min_instances
      max_instance_count = var.limits.max_instances
    }

    containers {
      image = var.image

      dynamic "ports" {
        for_each = var.http2 ? [1] : []
        content {
          name           = "h2c" # a request of HTTP/1 ends at 32 MiB on Cloud Run
          container_port = 8080
        }
      }

      resources {
        limits            = { cpu = tostring(var.limits.cpus), memory = "${var.limits.memory_mib}Mi" }
        cpu_idle          = true
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = merge(var.environment, {
          AXIOM_AUDIENCE  = var.name
          AXIOM_THREADS   = tostring(var.limits.concurrency)
          FUNCTION_TARGET = var.entry_point
        }, local.files)
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "volume_mounts" {
        for_each = local.files
        content {
          name       = lower(replace(volume_mounts.key, "_", "-"))
          mount_path = dirname(volume_mounts.value)
        }
      }

      dynamic "env" {
        for_each = var.secret_environment
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }
    }

    # A volume has one secret.
    dynamic "volumes" {
      for_each = var.secret_files
      content {
        name = lower(replace(volumes.key, "_", "-"))
        secret {
          secret       = volumes.value
          default_mode = 292 # 0444
          items {
            version = "latest"
            path    = basename(local.files[volumes.key])
          }
        }
      }
    }

    dynamic "vpc_access" {
      for_each = var.network == null ? [] : [var.network]
      content {
        egress = "PRIVATE_RANGES_ONLY"
        network_interfaces {
          network    = vpc_access.value.network
          subnetwork = vpc_access.value.subnetwork
        }
      }
    }
  }

  depends_on = [
    google_secret_manager_secret_iam_member.environment,
    google_project_iam_member.documents,
    google_storage_bucket_iam_member.objects,
  ]
}

# ---- who may call it

resource "google_cloud_run_v2_service_iam_member" "caller" {
  count = var.caller == null ? 0 : 1

  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.this.name
  role     = "roles/run.invoker"
  member   = "serviceAccount:${var.caller.account}"
}

resource "google_cloud_run_v2_service_iam_member" "person" {
  for_each = var.people

  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.this.name
  role     = "roles/run.invoker"
  member   = each.key
}

# ---- what it may do; publishing is granted with each topic

locals {
  object_roles = {
    none   = []
    read   = ["roles/storage.objectViewer"]
    create = ["roles/storage.objectViewer", "roles/storage.objectCreator"]
    delete = ["roles/storage.objectUser"]
  }
  secret_roles = {
    none   = {}
    read   = { reads = "roles/secretmanager.secretAccessor" }
    manage = { reads = "roles/secretmanager.secretAccessor", adds = "roles/secretmanager.secretVersionAdder", deletes = var.secret_custom_roles.deleter }
  }
}

resource "google_storage_bucket_iam_member" "objects" {
  for_each = toset(local.object_roles[var.objects])

  bucket = var.bucket
  role   = each.key
  member = google_service_account.this.member
}

resource "google_storage_bucket_iam_member" "landing" {
  count = var.landing_bucket == null ? 0 : 1

  bucket = var.landing_bucket.name
  role   = var.landing_bucket.role
  member = google_service_account.this.member
}

resource "google_project_iam_member" "documents" {
  project = var.project
  role    = "roles/datastore.user"
  member  = google_service_account.this.member

  condition {
    title       = "the database of Axiom Flow"
    description = "Firestore has no roles for one database alone."
    expression  = "resource.name == \"${var.database}\""
  }
}

# Secrets that configuration names are made while the system runs, so the role cannot be of each one.
resource "google_project_iam_member" "secrets" {
  for_each = local.secret_roles[var.secrets]

  project = var.project
  role    = each.value
  member  = google_service_account.this.member

  condition {
    title      = "secrets of Axiom Flow"
    expression = "resource.name.startsWith(\"projects/${var.project_number}/secrets/${var.secret_prefix}\")"
  }
}

# To make a secret is asked of the project, which has no name that a condition could look at.
resource "google_project_iam_member" "secret_creator" {
  count = var.secrets == "manage" ? 1 : 0

  project = var.project
  role    = var.secret_custom_roles.creator
  member  = google_service_account.this.member
}

resource "google_secret_manager_secret_iam_member" "environment" {
  for_each = merge(var.secret_environment, var.secret_files)

  project   = var.project
  secret_id = each.value
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.this.member
}

# Vertex AI has no role for one model alone.
resource "google_project_iam_member" "gemini" {
  count = var.asks_gemini ? 1 : 0

  project = var.project
  role    = "roles/aiplatform.user"
  member  = google_service_account.this.member
}
