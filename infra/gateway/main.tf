# The gateway takes DICOM over TCP and is always on. `host` says what it runs on: a Cloud Run worker
# pool, which has a name but no fixed address; machines behind a load balancer with a fixed address;
# or nothing here (none), for gateways on premises, each with a spool on a disk of its own.

locals {
  is_pool     = var.host == "worker-pool"
  is_machines = var.host == "machines"
  dns_name    = "gateway.${var.dns_suffix}."

  environment = merge(var.environment, {
    AXIOM_DIMSE_HOST  = "0.0.0.0"
    AXIOM_DIMSE_PORT  = tostring(var.dimse_ports[0])
    AXIOM_AE_TITLE    = var.ae_title
    AXIOM_HEALTH_PORT = tostring(var.health_port)
    AXIOM_INSTANCE    = var.name
    AXIOM_AUDIENCE    = var.name
  })
}

resource "google_service_account" "this" {
  project      = var.project
  account_id   = var.name
  display_name = "Axiom Flow: gateway"
  description  = "What the gateway acts as."
}

# ---- what it may do; publishing is granted with each topic

resource "google_storage_bucket_iam_member" "objects" {
  # It deletes what it could not announce.
  bucket = var.bucket
  role   = "roles/storage.objectUser"
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

resource "google_project_iam_member" "secrets" {
  project = var.project
  role    = "roles/secretmanager.secretAccessor"
  member  = google_service_account.this.member

  condition {
    title      = "secrets of Axiom Flow"
    expression = "resource.name.startsWith(\"projects/${var.project_number}/secrets/${var.secret_prefix}\")"
  }
}

resource "google_dns_managed_zone_iam_member" "registers_itself" {
  count = local.is_pool ? 1 : 0

  project      = var.project
  managed_zone = google_dns_managed_zone.this[0].name
  role         = "roles/dns.admin"
  member       = google_service_account.this.member
}

# ---- its name

resource "google_dns_managed_zone" "this" {
  count = var.host == "none" ? 0 : 1

  project     = var.project
  name        = var.name
  dns_name    = "${var.dns_suffix}."
  description = "Where modalities find the gateway"
  visibility  = "private"
  labels      = var.labels

  private_visibility_config {
    networks {
      network_url = var.network.network
    }
  }
}

resource "google_dns_record_set" "fixed" {
  count = local.is_machines ? 1 : 0

  project      = var.project
  managed_zone = google_dns_managed_zone.this[0].name
  name         = local.dns_name
  type         = "A"
  ttl          = 300
  rrdatas      = [google_compute_address.this[0].address]
}

# ---- host "worker-pool"

resource "google_cloud_run_v2_worker_pool" "this" {
  count = local.is_pool ? 1 : 0

  project             = var.project
  location            = var.region
  name                = var.name
  description         = "Takes DICOM over TCP on port ${join(", ", var.dimse_ports)}"
  labels              = var.labels
  deletion_protection = var.deletion_protection

  scaling {
    scaling_mode          = "MANUAL"
    manual_instance_count = var.instances
  }

  template {
    service_account = google_service_account.this.email
    encryption_key  = one(var.kms_key[*].id)
    labels          = var.labels

    containers {
      image = var.image

      resources {
        limits = { cpu = tostring(var.cpus), memory = "${var.memory_mib}Mi" }
      }

      dynamic "env" {
        for_each = merge(local.environment, {
          AXIOM_DNS_ZONE = google_dns_managed_zone.this[0].name
          AXIOM_DNS_NAME = local.dns_name
        })
        content {
          name  = env.key
          value = env.value
        }
      }

      # Not the port of DICOM: a peer that connects and says nothing is a failed association.
      startup_probe {
        period_seconds    = 2
        failure_threshold = 30
        http_get {
          path = "/live"
          port = var.health_port
        }
      }

      liveness_probe {
        period_seconds    = 10
        failure_threshold = 6
        http_get {
          path = "/live"
          port = var.health_port
        }
      }
    }

    vpc_access {
      egress = "ALL_TRAFFIC"
      network_interfaces {
        network    = var.network.network
        subnetwork = var.network.subnetwork
      }
    }
  }

  depends_on = [google_project_iam_member.documents, google_storage_bucket_iam_member.objects]
}

# ---- host "machines", and on premises what fetches the image

resource "google_artifact_registry_repository_iam_member" "pulls" {
  count = local.is_pool ? 0 : 1 # Cloud Run pulls by itself

  project    = var.project
  location   = var.region
  repository = var.repository
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.this.member
}

resource "google_project_iam_member" "writes_logs" {
  for_each = local.is_machines ? toset(["roles/logging.logWriter", "roles/monitoring.metricWriter"]) : []

  project = var.project
  role    = each.key
  member  = google_service_account.this.member
}

resource "google_compute_instance_template" "this" {
  count = local.is_machines ? 1 : 0

  project      = var.project
  region       = var.region
  name_prefix  = "${var.name}-"
  machine_type = var.machine_type
  labels       = var.labels

  disk {
    source_image = "projects/cos-cloud/global/images/family/cos-stable"
    auto_delete  = true
    boot         = true
    disk_type    = "pd-balanced"
    disk_size_gb = 20

    dynamic "disk_encryption_key" {
      for_each = var.kms_key == null ? [] : [var.kms_key]
      content {
        kms_key_self_link = disk_encryption_key.value.id
      }
    }
  }

  # No address of its own on the internet.
  network_interface {
    network    = var.network.network
    subnetwork = var.network.subnetwork
  }

  service_account {
    email  = google_service_account.this.email
    scopes = ["cloud-platform"]
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  metadata = {
    block-project-ssh-keys = "true"
    google-logging-enabled = "true"
    user-data = templatefile("${path.module}/cloud-init.yaml", {
      image       = var.image
      registry    = split("/", var.image)[0]
      environment = local.environment
      dimse_ports = var.dimse_ports
      health_port = var.health_port
      memory_mib  = var.memory_mib
    })
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_health_check" "this" {
  count = local.is_machines ? 1 : 0

  project             = var.project
  name                = var.name
  description         = "Asks the gateway itself, not its port of DICOM"
  check_interval_sec  = 5
  timeout_sec         = 5
  healthy_threshold   = 2
  unhealthy_threshold = 3

  http_health_check {
    port         = var.health_port
    request_path = "/live"
  }

  log_config {
    enable = true
  }
}

resource "google_compute_region_instance_group_manager" "this" {
  count = local.is_machines ? 1 : 0

  project            = var.project
  region             = var.region
  name               = var.name
  base_instance_name = var.name
  target_size        = var.instances

  version {
    instance_template = google_compute_instance_template.this[0].id
  }

  auto_healing_policies {
    health_check      = google_compute_health_check.this[0].id
    initial_delay_sec = 120
  }

  # A new machine is there before an old one goes.
  update_policy {
    type                  = "PROACTIVE"
    minimal_action        = "REPLACE"
    max_surge_fixed       = 3
    max_unavailable_fixed = 0
  }

  depends_on = [
    google_artifact_registry_repository_iam_member.pulls,
    google_project_iam_member.documents,
    google_storage_bucket_iam_member.objects,
  ]
}

resource "google_compute_address" "this" {
  count = local.is_machines ? 1 : 0

  project      = var.project
  region       = var.region
  name         = var.name
  description  = "What modalities hold as the gateway's address"
  address_type = "INTERNAL"
  subnetwork   = var.network.subnetwork
  address      = var.address
  labels       = var.labels
}

resource "google_compute_region_backend_service" "this" {
  count = local.is_machines ? 1 : 0

  project                         = var.project
  region                          = var.region
  name                            = var.name
  protocol                        = "TCP"
  load_balancing_scheme           = "INTERNAL"
  health_checks                   = [google_compute_health_check.this[0].id]
  connection_draining_timeout_sec = 300

  backend {
    group          = google_compute_region_instance_group_manager.this[0].instance_group
    balancing_mode = "CONNECTION"
  }

  log_config {
    enable      = true
    sample_rate = 0.1
  }
}

resource "google_compute_forwarding_rule" "this" {
  count = local.is_machines ? 1 : 0

  project               = var.project
  region                = var.region
  name                  = var.name
  load_balancing_scheme = "INTERNAL"
  ip_protocol           = "TCP"
  ports                 = [for port in var.dimse_ports : tostring(port)]
  ip_address            = google_compute_address.this[0].id
  backend_service       = google_compute_region_backend_service.this[0].id
  network               = var.network.network
  subnetwork            = var.network.subnetwork
  allow_global_access   = true # modalities behind a VPN of another region
  labels                = var.labels
}
