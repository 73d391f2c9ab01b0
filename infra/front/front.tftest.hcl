variables {
  project     = "demo"
  region      = "europe-west1"
  name        = "axiom"
  domain      = "axiom.example.org"
  services    = { api = "axiom-api", dicomweb = "axiom-dicomweb" }
  people      = ["group:it@example.org"]
  network     = { network = "n", subnetwork = "s" }
  proxy_range = "10.20.1.0/26"
  labels      = {}
}

run "external" {
  command = plan
  variables {
    kind = "external"
  }

  assert {
    condition     = alltrue([for one in google_compute_backend_service.this : one.iap[0].enabled])
    error_message = "nobody passes without an identity"
  }
  assert {
    condition     = google_compute_global_forwarding_rule.this[0].port_range == "443"
    error_message = "HTTPS alone"
  }
  assert {
    condition     = length(google_iap_web_backend_service_iam_member.person) == 2
    error_message = "who is let in is let in to both"
  }
}

run "internal" {
  command = plan
  variables {
    kind        = "internal"
    certificate = "projects/demo/locations/europe-west1/certificates/axiom"
  }

  assert {
    condition     = length(google_compute_global_address.this) == 0 && google_compute_address.this[0].address_type == "INTERNAL"
    error_message = "nothing of it is on the internet"
  }
  assert {
    condition     = alltrue([for one in google_compute_region_backend_service.this : one.iap[0].enabled])
    error_message = "nobody passes without an identity"
  }
}

run "internal_without_a_certificate" {
  command = plan
  variables {
    kind = "internal"
  }
  expect_failures = [var.certificate]
}
