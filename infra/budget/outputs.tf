output "id" {
  description = "Id of the budget."
  value       = google_billing_budget.this.id
}
