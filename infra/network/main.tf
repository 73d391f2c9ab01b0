# A network with one subnetwork, or the caller's own; who may reach the gateway in it.

locals {
  is_new     = var.existing == null
  network    = local.is_new ? google_compute_network.this[0].id : var.existing.network
  subnetwork = local.is_new ? google_compute_subnetwork.this[0].id : var.existing.subnetwork
}

resource "google_compute_network" "this" {
  count = local.is_new ? 1 : 0

  project                 = var.project
  name                    = var.name
  auto_create_subnetworks = false
  routing_mode            = "GLOBAL"
}

resource "google_compute_subnetwork" "this" {
  count = local.is_new ? 1 : 0

  project                    = var.project
  region                     = var.region
  name                       = var.name
  network                    = google_compute_network.this[0].id
  ip_cidr_range              = var.range
  private_ip_google_access   = true
  private_ipv6_google_access = "DISABLE_GOOGLE_ACCESS"

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "EXCLUDE_ALL_METADATA"
  }
}

# Nothing comes in that is not said here.
resource "google_compute_firewall" "modalities" {
  count = length(var.modalities) == 0 ? 0 : 1

  project            = var.project
  name               = "${var.name}-modalities"
  description        = "DICOM from modalities and PACS to the gateway"
  network            = local.network
  direction          = "INGRESS"
  source_ranges      = var.modalities
  destination_ranges = [var.range]

  allow {
    protocol = "tcp"
    ports    = var.dimse_ports
  }

  log_config {
    metadata = "EXCLUDE_ALL_METADATA"
  }
}

resource "google_compute_firewall" "health_checks" {
  count = var.health_port == null ? 0 : 1

  project            = var.project
  name               = "${var.name}-health-checks"
  description        = "Google's health checks of the gateway"
  network            = local.network
  direction          = "INGRESS"
  source_ranges      = ["35.191.0.0/16", "130.211.0.0/22"]
  destination_ranges = [var.range]

  allow {
    protocol = "tcp"
    ports    = [tostring(var.health_port)]
  }
}

# Google's services are asked over their private addresses, which a VPC Service Controls perimeter
# can enclose.
resource "google_dns_managed_zone" "google_apis" {
  for_each = local.is_new ? toset(["googleapis.com.", "pkg.dev."]) : []

  project     = var.project
  name        = "${var.name}-${replace(trimsuffix(each.key, "."), ".", "-")}"
  dns_name    = each.key
  description = "Google's services at private addresses"
  visibility  = "private"
  labels      = var.labels

  private_visibility_config {
    networks {
      network_url = local.network
    }
  }
}

resource "google_dns_record_set" "restricted" {
  for_each = google_dns_managed_zone.google_apis

  project      = var.project
  managed_zone = each.value.name
  name         = each.value.dns_name
  type         = "A"
  ttl          = 300
  rrdatas      = ["199.36.153.4", "199.36.153.5", "199.36.153.6", "199.36.153.7"] # restricted.googleapis.com
}

resource "google_dns_record_set" "any_service" {
  for_each = google_dns_managed_zone.google_apis

  project      = var.project
  managed_zone = each.value.name
  name         = "*.${each.value.dns_name}"
  type         = "CNAME"
  ttl          = 300
  rrdatas      = [each.value.dns_name]
}
