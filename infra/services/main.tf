# The Google services that are switched on, and the accounts that they act as.

locals {
  services = toset([
    "artifactregistry.googleapis.com",
    "cloudscheduler.googleapis.com",
    "firestore.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
  ])

  # Google makes an account for each of these when it is first asked to.
  agents = toset(compact([
    "pubsub.googleapis.com",
    "run.googleapis.com",
    var.front ? "iap.googleapis.com" : "",
    var.healthcare ? "healthcare.googleapis.com" : "",
    var.kms_key == null ? "" : "artifactregistry.googleapis.com",
    var.kms_key == null ? "" : "firestore.googleapis.com",
    var.kms_key == null ? "" : "secretmanager.googleapis.com",
  ]))

  optional = toset(compact([
    var.healthcare ? "healthcare.googleapis.com" : "",
    var.network ? "compute.googleapis.com" : "",
    var.network ? "dns.googleapis.com" : "",
    var.kms_key == null ? "" : "cloudkms.googleapis.com",
    var.budget ? "billingbudgets.googleapis.com" : "",
    var.builds ? "cloudbuild.googleapis.com" : "",
    var.front ? "iap.googleapis.com" : "",
    var.gemini ? "aiplatform.googleapis.com" : "",
    var.telemetry ? "cloudtrace.googleapis.com" : "",
    var.telemetry ? "telemetry.googleapis.com" : "",
    var.perimeter ? "accesscontextmanager.googleapis.com" : "",
  ]))
}

resource "google_project_service" "this" {
  for_each = setunion(local.services, local.optional)

  project = var.project
  service = each.key

  # Others may use them in this project too.
  disable_on_destroy = false
}

resource "google_project_service_identity" "this" {
  for_each = local.agents
  provider = google-beta

  project = var.project
  service = each.key

  depends_on = [google_project_service.this]
}

data "google_storage_project_service_account" "this" {
  project = var.project

  depends_on = [google_project_service.this]
}

# A key encrypts for the services that keep data, never for a person.
resource "google_kms_crypto_key_iam_member" "this" {
  for_each = var.kms_key == null ? {} : merge(
    { for service, agent in google_project_service_identity.this : service => agent.member },
    { "storage.googleapis.com" = data.google_storage_project_service_account.this.member },
    # Made with the service, and by its name alone: nobody can be asked for it.
    var.machines ? { "compute.googleapis.com" = "serviceAccount:service-${var.project_number}@compute-system.iam.gserviceaccount.com" } : {},
  )

  crypto_key_id = var.kms_key.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = each.value

  depends_on = [google_project_service.this]
}
