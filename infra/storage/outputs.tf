output "received" {
  description = "Name of the bucket of received files and configuration."
  value       = google_storage_bucket.received.name
}

output "landing" {
  description = "Name of the bucket that others put files into; null if there is none."
  value       = var.landing ? google_storage_bucket.landing[0].name : null
}
