output "network" {
  description = "Id of the network."
  value       = local.network
}

output "subnetwork" {
  description = "Id of the subnetwork."
  value       = local.subnetwork
}
