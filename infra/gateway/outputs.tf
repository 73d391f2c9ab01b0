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

output "environment" {
  description = "Lines of the environment file of each gateway on premises, but for AXIOM_INSTANCE, its name; null where `host` is another."
  value = var.host != "none" ? null : join("\n", [
    for name, value in merge({ for name, value in local.environment : name => value if name != "AXIOM_INSTANCE" }, { AXIOM_GATEWAY_SPOOL = "/spool" }) : "${name}=${value}"
  ])
}
