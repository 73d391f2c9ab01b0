variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region that the secrets stay in."
  type        = string
}

variable "prefix" {
  description = "What the names of all our secrets start with."
  type        = string
}

variable "kms_key" {
  description = "Key that encrypts the secrets; null for Google's own."
  type        = object({ id = string })
  default     = null
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the secrets."
  type        = bool
}

variable "labels" {
  description = "Labels of the secrets."
  type        = map(string)
}
