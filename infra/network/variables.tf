variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region of the subnetwork."
  type        = string
}

variable "name" {
  description = "Name of the network."
  type        = string
}

variable "existing" {
  description = "Ids of a network and a subnetwork that are there; null to make them."
  type        = object({ network = string, subnetwork = string })
  default     = null
}

variable "range" {
  description = "Addresses of the subnetwork: /26 or more, for Cloud Run takes 16 at a time."
  type        = string

  validation {
    condition     = can(cidrhost(var.range, 0)) && try(tonumber(split("/", var.range)[1]) <= 26, false)
    error_message = "A range of IPv4 addresses with at least 64 of them, such as 10.20.0.0/24."
  }
}

variable "modalities" {
  description = "Ranges of addresses that may send DICOM to the gateway."
  type        = set(string)

  validation {
    condition     = alltrue([for range in var.modalities : can(cidrhost(range, 0)) && range != "0.0.0.0/0"])
    error_message = "Ranges such as 10.1.0.0/16; not the whole world."
  }
}

variable "dimse_ports" {
  description = "Ports that the gateway listens on for DICOM."
  type        = list(string)
}

variable "health_port" {
  description = "Port that Google's health checks ask; null if none does."
  type        = number
  default     = null
}

variable "labels" {
  description = "Labels of the zones."
  type        = map(string)
}
