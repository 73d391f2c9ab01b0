# One name and one certificate for the API and DICOMweb, and Identity-Aware Proxy before both: it lets
# in whom `people` names, with their Google identity, and calls the services itself. `kind` says
# where the address is: on the internet (external), or in the network (internal).

locals {
  is_external = var.kind == "external"
  external    = local.is_external ? var.services : {}
  internal    = local.is_external ? {} : var.services
  pairs       = { for pair in setproduct(keys(var.services), var.people) : "${pair[0]} ${pair[1]}" => { service = pair[0], person = pair[1] } }
}

resource "google_compute_region_network_endpoint_group" "this" {
  for_each = var.services

  project               = var.project
  region                = var.region
  name                  = "${var.name}-${each.key}"
  description           = "functions/${each.key} behind a load balancer"
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = each.value
  }
}

# ---- kind "external"

resource "google_compute_global_address" "this" {
  count = local.is_external ? 1 : 0

  project     = var.project
  name        = "${var.name}-front"
  description = "What ${var.domain} is the name of"
  labels      = var.labels
}

resource "google_compute_managed_ssl_certificate" "this" {
  count = local.is_external ? 1 : 0

  project     = var.project
  name        = "${var.name}-front"
  description = "Google makes and renews it once ${var.domain} leads to the address"

  managed {
    domains = [var.domain]
  }
}

resource "google_compute_ssl_policy" "this" {
  count = local.is_external ? 1 : 0

  project         = var.project
  name            = "${var.name}-front"
  profile         = "RESTRICTED"
  min_tls_version = "TLS_1_2"
}

resource "google_compute_backend_service" "this" {
  for_each = local.external

  project               = var.project
  name                  = "${var.name}-${each.key}"
  description           = "functions/${each.key}"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  protocol              = "HTTPS"

  backend {
    group = google_compute_region_network_endpoint_group.this[each.key].id
  }

  iap {
    enabled = true
  }

  log_config {
    enable      = true
    sample_rate = 1
  }
}

resource "google_compute_url_map" "this" {
  count = local.is_external ? 1 : 0

  project         = var.project
  name            = "${var.name}-front"
  default_service = google_compute_backend_service.this["api"].id

  host_rule {
    hosts        = [var.domain]
    path_matcher = "all"
  }

  path_matcher {
    name            = "all"
    default_service = google_compute_backend_service.this["api"].id

    path_rule {
      paths   = [var.dicomweb_path, "${var.dicomweb_path}/*"]
      service = google_compute_backend_service.this["dicomweb"].id
    }
  }
}

resource "google_compute_target_https_proxy" "this" {
  count = local.is_external ? 1 : 0

  project          = var.project
  name             = "${var.name}-front"
  url_map          = google_compute_url_map.this[0].id
  ssl_certificates = [google_compute_managed_ssl_certificate.this[0].id]
  ssl_policy       = google_compute_ssl_policy.this[0].id
}

resource "google_compute_global_forwarding_rule" "this" {
  count = local.is_external ? 1 : 0

  project               = var.project
  name                  = "${var.name}-front"
  description           = "HTTPS to the API and DICOMweb"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.this[0].id
  port_range            = "443"
  target                = google_compute_target_https_proxy.this[0].id
  labels                = var.labels
}

resource "google_iap_web_backend_service_iam_member" "person" {
  for_each = local.is_external ? local.pairs : {}

  project             = var.project
  web_backend_service = google_compute_backend_service.this[each.value.service].name
  role                = "roles/iap.httpsResourceAccessor"
  member              = each.value.person
}

# ---- kind "internal"

# Where the load balancer's own proxies are; they need a range of their own.
resource "google_compute_subnetwork" "proxies" {
  #checkov:skip=CKV_GCP_26:flow logs are not offered for the range of proxies
  #checkov:skip=CKV_GCP_74:nothing in it asks Google's services
  #checkov:skip=CKV_GCP_76:nothing in it has IPv6
  count = local.is_external ? 0 : 1

  project       = var.project
  region        = var.region
  name          = "${var.name}-front"
  network       = var.network.network
  ip_cidr_range = var.proxy_range
  purpose       = "REGIONAL_MANAGED_PROXY"
  role          = "ACTIVE"
}

resource "google_compute_region_backend_service" "this" {
  for_each = local.internal

  project               = var.project
  region                = var.region
  name                  = "${var.name}-${each.key}"
  description           = "functions/${each.key}"
  load_balancing_scheme = "INTERNAL_MANAGED"
  protocol              = "HTTPS"

  backend {
    group = google_compute_region_network_endpoint_group.this[each.key].id
  }

  iap {
    enabled = true
  }

  log_config {
    enable      = true
    sample_rate = 1
  }
}

resource "google_compute_region_url_map" "this" {
  count = local.is_external ? 0 : 1

  project         = var.project
  region          = var.region
  name            = "${var.name}-front"
  default_service = google_compute_region_backend_service.this["api"].id

  host_rule {
    hosts        = [var.domain]
    path_matcher = "all"
  }

  path_matcher {
    name            = "all"
    default_service = google_compute_region_backend_service.this["api"].id

    path_rule {
      paths   = [var.dicomweb_path, "${var.dicomweb_path}/*"]
      service = google_compute_region_backend_service.this["dicomweb"].id
    }
  }
}

resource "google_compute_region_target_https_proxy" "this" {
  count = local.is_external ? 0 : 1

  project                          = var.project
  region                           = var.region
  name                             = "${var.name}-front"
  url_map                          = google_compute_region_url_map.this[0].id
  certificate_manager_certificates = [var.certificate]
}

resource "google_compute_address" "this" {
  count = local.is_external ? 0 : 1

  project      = var.project
  region       = var.region
  name         = "${var.name}-front"
  description  = "What ${var.domain} is the name of, in the network"
  address_type = "INTERNAL"
  subnetwork   = var.network.subnetwork
  labels       = var.labels
}

resource "google_compute_forwarding_rule" "this" {
  count = local.is_external ? 0 : 1

  project               = var.project
  region                = var.region
  name                  = "${var.name}-front"
  description           = "HTTPS to the API and DICOMweb"
  load_balancing_scheme = "INTERNAL_MANAGED"
  ip_address            = google_compute_address.this[0].id
  ip_protocol           = "TCP"
  port_range            = "443"
  target                = google_compute_region_target_https_proxy.this[0].id
  network               = var.network.network
  subnetwork            = var.network.subnetwork
  labels                = var.labels

  depends_on = [google_compute_subnetwork.proxies]
}

resource "google_iap_web_region_backend_service_iam_member" "person" {
  for_each = local.is_external ? {} : local.pairs

  project                    = var.project
  region                     = var.region
  web_region_backend_service = google_compute_region_backend_service.this[each.value.service].name
  role                       = "roles/iap.httpsResourceAccessor"
  member                     = each.value.person
}
