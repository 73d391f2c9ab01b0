variable "project" {
  description = "Id of the project."
  type        = string
}

variable "name" {
  description = "Name of the dataset."
  type        = string
}

variable "location" {
  description = "Region of the dataset."
  type        = string
}

variable "stores" {
  description = "DICOM stores by name. What others put into one that is a source is received from there."
  type        = map(object({ is_source = optional(bool, false) }))

  validation {
    condition     = alltrue([for name in keys(var.stores) : can(regex("^[A-Za-z0-9_.-]{1,256}$", name))])
    error_message = "A store's name has letters, digits, '_', '-' and '.' alone."
  }
}

variable "members" {
  description = "IAM members that use the stores, each with its role there, by a name of ours."
  type        = map(object({ member = string, role = string }))
}

variable "topic" {
  description = "Topic that is told of what sources store, once the Healthcare API may publish to it."
  type        = string
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the stores."
  type        = bool
}

variable "kms_key" {
  description = "Key that encrypts the dataset; null for Google's own."
  type        = object({ id = string })
  default     = null
}

variable "labels" {
  description = "Labels of the stores."
  type        = map(string)
}
