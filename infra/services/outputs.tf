output "pubsub_agent" {
  description = "IAM member that Pub/Sub acts as."
  value       = google_project_service_identity.this["pubsub.googleapis.com"].member
}

output "storage_agent" {
  description = "IAM member that Cloud Storage acts as."
  value       = data.google_storage_project_service_account.this.member
}

output "healthcare_agent" {
  description = "IAM member that the Healthcare API acts as; null where it is not used."
  value       = var.healthcare ? google_project_service_identity.this["healthcare.googleapis.com"].member : null
}

output "kms_key" {
  description = "The key, once the services may use it; null for Google's own keys."
  value       = var.kms_key

  depends_on = [google_kms_crypto_key_iam_member.this]
}
