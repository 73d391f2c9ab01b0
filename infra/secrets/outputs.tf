output "ids" {
  description = "Secret ids by our names for them (api-key, pseudonym-key), once each has a value."
  value       = { for name, secret in google_secret_manager_secret.this : name => secret.secret_id }

  depends_on = [google_secret_manager_secret_version.this]
}

output "custom_roles" {
  description = "Roles to make a secret and to delete one."
  value       = { creator = google_project_iam_custom_role.creator.id, deleter = google_project_iam_custom_role.deleter.id }
}
