variables {
  project             = "demo"
  project_number      = "1"
  region              = "europe-west1"
  name                = "axiom-gateway"
  image               = "r/gateway@sha256:0"
  environment         = { AXIOM_PLATFORM = "cloud" }
  ae_title            = "AXIOM"
  dimse_ports         = [11112, 2762]
  instances           = 2
  cpus                = 1
  memory_mib          = 1024
  dns_suffix          = "axiom.internal"
  network             = { network = "n", subnetwork = "s" }
  repository          = "axiom"
  bucket              = "b"
  database            = "projects/demo/databases/axiom"
  secret_prefix       = "axiom-"
  deletion_protection = true
  labels              = {}
}

run "worker_pool" {
  command = plan
  variables {
    host = "worker-pool"
  }

  assert {
    condition     = output.address == "gateway.axiom.internal"
    error_message = "modalities find a worker pool by its name"
  }
  assert {
    condition     = google_cloud_run_v2_worker_pool.this[0].scaling[0].manual_instance_count == 2
    error_message = "as many as were asked for"
  }
  assert {
    condition     = length(google_dns_record_set.fixed) == 0
    error_message = "a worker pool registers its address itself"
  }
}

run "machines" {
  command = plan
  variables {
    host    = "machines"
    address = "10.20.0.10"
  }

  assert {
    condition     = output.address == "10.20.0.10"
    error_message = "modalities hold the fixed address"
  }
  assert {
    condition     = google_compute_forwarding_rule.this[0].load_balancing_scheme == "INTERNAL"
    error_message = "nobody reaches it from the internet"
  }
  assert {
    condition     = toset(google_compute_forwarding_rule.this[0].ports) == toset(["11112", "2762"])
    error_message = "each listener of the configuration has its port"
  }
}

run "none" {
  command = plan
  variables {
    host    = "none"
    network = null
  }

  assert {
    condition     = output.address == null
    error_message = "a gateway on premises has an address of the premises"
  }
  assert {
    condition     = length(google_dns_managed_zone.this) == 0
    error_message = "nothing runs here"
  }
  assert {
    condition     = strcontains(output.environment, "AXIOM_GATEWAY_SPOOL=/spool")
    error_message = "what it receives is kept on its disk until the cloud has it"
  }
  assert {
    condition     = length(google_artifact_registry_repository_iam_member.pulls) == 1
    error_message = "its image is pulled as its account"
  }
}

run "another_host" {
  command = plan
  variables {
    host = "kubernetes"
  }
  expect_failures = [var.host]
}
