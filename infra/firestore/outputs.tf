output "name" {
  description = "Name of the database."
  value       = google_firestore_database.this.name
}

output "condition_name" {
  description = "The database as IAM conditions name it."
  value       = "projects/${var.project}/databases/${google_firestore_database.this.name}"
}
