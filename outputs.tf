output "images" {
  description = "Where images are pushed to, before the first ones can run."
  value       = module.registry.address
}

output "gateway" {
  description = "Where modalities send to: AE Title, address and port. Null if the gateway is on premises."
  value       = var.gateway.host == "none" ? null : { ae_title = var.gateway.ae_title, address = module.gateway.address, port = var.gateway.port }
}

output "gateway_account" {
  description = "Service account that a gateway on premises acts as."
  value       = module.gateway.account
}

output "gateway_environment" {
  description = "The environment file of gateways on premises, to which each adds its own name as AXIOM_INSTANCE. Null if the gateway is here."
  value       = module.gateway.environment
}

output "api" {
  description = "Where the API is. Requests need a Google identity (X-Serverless-Authorization: Bearer …) and an API key (Authorization: Api-Key …)."
  value       = module.functions["api"].url
}

output "dicomweb" {
  description = "Where DICOMweb is: below /api/v1/dicomweb, with the same two headers."
  value       = module.functions["dicomweb"].url
}

output "front" {
  description = "The address that the domain of the API and DICOMweb is to lead to, behind Identity-Aware Proxy. Null if there is none."
  value       = one(module.front[*].address)
}

output "buckets" {
  description = "The bucket of received files, and the one that others put files into (null if there is none)."
  value       = { received = module.storage.received, landing = module.storage.landing }
}

output "dicom_stores" {
  description = "Ids of the DICOM stores, as destinations name them."
  value       = length(var.dicom_stores) == 0 ? {} : { for name, store in module.healthcare[0].stores : name => store.id }
}

output "dashboard" {
  description = "Where to look first."
  value       = module.monitoring.dashboard
}

output "next" {
  description = "What to do now."
  value = [
    "Read the first API key: gcloud secrets versions access latest --secret=${module.secrets.ids["api-key"]} --project=${var.project}",
    "See that it answers: curl -H \"X-Serverless-Authorization: Bearer $(gcloud auth print-identity-token)\" ${module.functions["api"].url}/health",
    var.gateway.host == "none" ? "Start a gateway on premises: docs/edge.md; its environment file: terraform output -raw gateway_environment." : "Send to it: echoscu -aec '${var.gateway.ae_title}' ${module.gateway.address} ${var.gateway.port}",
    "Say where instances go: docs/configuration.md. Name each destination in `destinations` to give it a queue of its own.",
  ]
}

output "delivery_member" {
  description = "IAM member that deliveries are made as: what stores of other projects let in."
  value       = module.functions["deliver-instance"].member
}

output "clean_up_member" {
  description = "IAM member that deletes at destinations with `retain_days`: what buckets of other projects let list and delete."
  value       = module.functions["clean-up"].member
}

output "running" {
  description = "The images that run: what a roll-back goes back to."
  value       = var.images
}
