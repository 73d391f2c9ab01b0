# Little more than the least: DICOM from one range of addresses, DICOMweb and the API for one group,
# and a DICOM store that everything is delivered to.

terraform {
  required_version = ">= 1.11"
}

variable "images" {
  description = "The two images, by digest."
  type        = object({ functions = string, gateway = string })
}

module "axiom_flow" {
  source = "../../.."

  project = "hospital-dicom-trial"
  region  = "europe-west1"
  images  = var.images

  gateway      = { modalities = ["10.1.0.0/16"] }
  dicom_stores = { archive = {} }
  http         = { from = "anywhere", people = ["group:radiology-it@example.org"] }
  alerts       = { emails = ["radiology-it@example.org"] }
}

output "axiom_flow" {
  description = "Where everything is, and what to do next."
  value       = module.axiom_flow
}
