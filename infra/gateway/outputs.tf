output "member" {
  description = "IAM member that the gateway acts as."
  value       = google_service_account.this.member
}

output "account" {
  description = "E-mail address of the gateway's service account: what a gateway on premises acts as."
  value       = google_service_account.this.email
}

output "address" {
  description = "Where modalities find it: a fixed address, a name in the network, or null."
  value = (
    local.is_machines ? google_compute_address.this[0].address
    : local.is_pool ? trimsuffix(local.dns_name, ".")
    : null
  )
}
