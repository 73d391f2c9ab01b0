variable "project" {
  description = "Id of the project."
  type        = string
}

variable "project_number" {
  description = "Number of the project, which names of secrets hold."
  type        = string
}

variable "region" {
  description = "Region of the gateway."
  type        = string
}

variable "name" {
  description = "Name of the gateway and of its account."
  type        = string
}

variable "host" {
  description = "What it runs on: worker-pool, machines, none."
  type        = string

  validation {
    condition     = contains(["worker-pool", "machines", "none"], var.host)
    error_message = "One of worker-pool, machines, none."
  }
}

variable "image" {
  description = "Image of the gateway, by digest."
  type        = string
}

variable "environment" {
  description = "What every process of the system is told."
  type        = map(string)
}

variable "ae_title" {
  description = "AE Title that modalities call."
  type        = string
}

variable "dimse_ports" {
  description = "Ports for DICOM: the one that there always is, and those of other listeners of the configuration."
  type        = list(number)
}

variable "health_port" {
  description = "Port for health checks over HTTP."
  type        = number
  default     = 8080
}

variable "instances" {
  description = "How many gateways run side by side."
  type        = number
}

variable "cpus" {
  description = "CPUs of each."
  type        = number
}

variable "memory_mib" {
  description = "Memory of each."
  type        = number
}

variable "machine_type" {
  description = "Type of the machines, where `host` is machines."
  type        = string
  default     = "e2-standard-2"
}

variable "address" {
  description = "The fixed address, where `host` is machines; null to be given one."
  type        = string
  default     = null
}

variable "dns_suffix" {
  description = "Private domain that the gateway's name is in."
  type        = string
}

variable "network" {
  description = "Network and subnetwork of the gateway; null where `host` is none."
  type        = object({ network = string, subnetwork = string })
}

variable "repository" {
  description = "Name of the repository of images."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket of received files."
  type        = string
}

variable "database" {
  description = "Firestore database, as IAM conditions name it."
  type        = string
}

variable "secret_prefix" {
  description = "What the names of all our secrets start with."
  type        = string
}

variable "kms_key" {
  description = "Key that encrypts images and disks; null for Google's own."
  type        = object({ id = string })
  default     = null
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the worker pool."
  type        = bool
}

variable "labels" {
  description = "Labels of the gateway."
  type        = map(string)
}
