# A hospital whose modalities hold an address, not a name, and come through a VPN with two tunnels.
# Data is encrypted with the hospital's key, old files move to cheaper storage, the PACS has a queue
# of its own, standard terms may be asked of Gemini, and the hospital gets traces, metrics and audit
# messages.

terraform {
  required_version = ">= 1.11"
  required_providers {
    google = { source = "hashicorp/google", version = "~> 8.7" }
  }
}

locals {
  project   = "hospital-dicom"
  region    = "europe-west3"
  hospital  = ["10.1.0.0/16", "10.2.0.0/16"]
  of_google = 64514
  of_ours   = 64515
}

variable "images" {
  description = "The two images, by digest."
  type        = object({ functions = string, gateway = string })
}

variable "vpn_address" {
  description = "Address of the hospital's VPN device on the internet."
  type        = string
  default     = "203.0.113.10"
}

variable "vpn_secret" {
  description = "What both ends of the VPN know (IKE pre-shared key)."
  type        = string
  sensitive   = true
}

# ---- the network, which is ours here since the VPN ends in it

resource "google_compute_network" "this" {
  project                 = local.project
  name                    = "dicom"
  auto_create_subnetworks = false
  routing_mode            = "GLOBAL"
}

resource "google_compute_subnetwork" "this" {
  project                  = local.project
  region                   = local.region
  name                     = "dicom"
  network                  = google_compute_network.this.id
  ip_cidr_range            = "10.20.0.0/24"
  private_ip_google_access = true

  log_config {
    metadata = "EXCLUDE_ALL_METADATA"
  }
}

resource "google_compute_ha_vpn_gateway" "this" {
  project = local.project
  region  = local.region
  name    = "hospital"
  network = google_compute_network.this.id
}

resource "google_compute_external_vpn_gateway" "hospital" {
  project         = local.project
  name            = "hospital"
  redundancy_type = "SINGLE_IP_INTERNALLY_REDUNDANT"

  interface {
    id         = 0
    ip_address = var.vpn_address
  }
}

resource "google_compute_router" "this" {
  project = local.project
  region  = local.region
  name    = "hospital"
  network = google_compute_network.this.id

  bgp {
    asn = local.of_google
  }
}

resource "google_compute_vpn_tunnel" "this" {
  for_each = { first = 0, second = 1 }

  project                         = local.project
  region                          = local.region
  name                            = "hospital-${each.key}"
  vpn_gateway                     = google_compute_ha_vpn_gateway.this.id
  vpn_gateway_interface           = each.value
  peer_external_gateway           = google_compute_external_vpn_gateway.hospital.id
  peer_external_gateway_interface = 0
  router                          = google_compute_router.this.id
  ike_version                     = 2
  shared_secret_wo                = var.vpn_secret
  shared_secret_wo_version        = "1"
}

resource "google_compute_router_interface" "this" {
  for_each = { first = "169.254.0.1/30", second = "169.254.1.1/30" }

  project    = local.project
  region     = local.region
  name       = "hospital-${each.key}"
  router     = google_compute_router.this.name
  vpn_tunnel = google_compute_vpn_tunnel.this[each.key].name
  ip_range   = each.value
}

resource "google_compute_router_peer" "this" {
  for_each = { first = "169.254.0.2", second = "169.254.1.2" }

  project         = local.project
  region          = local.region
  name            = "hospital-${each.key}"
  router          = google_compute_router.this.name
  interface       = google_compute_router_interface.this[each.key].name
  peer_ip_address = each.value
  peer_asn        = local.of_ours
}

# ---- the key

resource "google_kms_key_ring" "this" {
  project  = local.project
  location = local.region
  name     = "dicom"
}

resource "google_kms_crypto_key" "this" {
  key_ring        = google_kms_key_ring.this.id
  name            = "axiom"
  rotation_period = "7776000s" # 90 days

  # Whatever it encrypted is lost with it.
  lifecycle {
    prevent_destroy = true
  }
}

# ---- the system

module "axiom_flow" {
  source = "../../.."

  project = local.project
  region  = local.region
  images  = var.images
  kms_key = { id = google_kms_crypto_key.this.id }
  labels  = { cost-centre = "radiology" }

  network = {
    existing   = { network = google_compute_network.this.id, subnetwork = google_compute_subnetwork.this.id }
    range      = google_compute_subnetwork.this.ip_cidr_range
    dns_suffix = "dicom.hospital.internal"
  }

  gateway = {
    host       = "machines"
    ae_title   = "HOSPITAL_AXIOM"
    port       = 11112
    address    = "10.20.0.10"
    instances  = 2
    modalities = local.hospital
  }

  http         = { people = ["group:radiology-it@example.org"] }
  destinations = { pacs = {}, research-archive = { at_most_attempts = 50 } }
  storage      = { tiers_days = { nearline = 30, coldline = 90, archive = 365 } }
  gemini       = { location = local.region, model = "gemini-2.5-flash" }
  scale        = { min_instances = 1 }
  alerts       = { emails = ["radiology-it@example.org"], thresholds = { queue_age_s = 600 } }
  budget       = { billing_account = "012345-6789AB-CDEF01", monthly_amount = 800 }
  telemetry    = { endpoint = "http://10.1.0.20:4318", in_network = true, trace_sampling = 0.1 }
  audit_syslog = { url = "tls://audit.hospital.example:6514", authorities = "hospital-authorities" }
}

output "axiom_flow" {
  description = "Where everything is, and what to do next."
  value       = module.axiom_flow
}
