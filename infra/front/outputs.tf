output "address" {
  description = "The address that the domain is to lead to."
  value       = local.is_external ? google_compute_global_address.this[0].address : google_compute_address.this[0].address
}
