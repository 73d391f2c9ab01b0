# Two sites of one group in one project, each with its own queues, data and gateway; what one does
# touches no other. Both deliver to the group's DICOM store, which the first of them owns. A third
# site is one more entry.

terraform {
  required_version = ">= 1.11"
  required_providers {
    google = { source = "hashicorp/google", version = "~> 8.7" }
  }
}

locals {
  project = "imaging-group"

  sites = {
    north = { region = "europe-west1", gateway = { host = "worker-pool", ae_title = "NORTH", modalities = ["10.1.0.0/16"] }, range = "10.21.0.0/24" }
    # The image runs in the hospital's own computer room, and asks for nothing from outside.
    south = { region = "europe-west1", gateway = { host = "none", ae_title = "SOUTH", modalities = [] }, range = "10.22.0.0/24" }
  }
}

variable "images" {
  description = "The two images, by digest."
  type        = object({ functions = string, gateway = string })
}

module "site" {
  source   = "../../.."
  for_each = local.sites

  project = local.project
  region  = each.value.region
  name    = each.key
  images  = var.images
  labels  = { site = each.key }

  gateway      = each.value.gateway
  network      = { range = each.value.range, dns_suffix = "${each.key}.dicom.internal" }
  destinations = { pacs = {}, group-archive = {} }
  dicom_stores = each.key == "north" ? { group-archive = {} } : {}
  landing      = { enabled = each.key == "south" }
  alerts       = { emails = ["imaging-it@example.org"] }
}

# What delivers at the other sites may write to the group's store.
resource "google_healthcare_dicom_store_iam_member" "group_archive" {
  for_each = setsubtract(keys(local.sites), ["north"])

  dicom_store_id = module.site["north"].dicom_stores["group-archive"]
  role           = "roles/healthcare.dicomEditor"
  member         = module.site[each.key].delivery_member
}

output "sites" {
  description = "Of each site: where everything is, and what to do next."
  value       = module.site
}

output "south_gateway" {
  description = "The environment file of the gateway in south's computer room (docs/edge.md)."
  value       = module.site["south"].gateway_environment
}
