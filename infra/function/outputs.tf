output "url" {
  description = "Where the function answers."
  value       = google_cloud_run_v2_service.this.uri
}

output "audience" {
  description = "Audience of tokens for it."
  value       = var.name
}

output "member" {
  description = "IAM member that the function acts as."
  value       = google_service_account.this.member
}

output "name" {
  description = "Name of the service."
  value       = google_cloud_run_v2_service.this.name
}
