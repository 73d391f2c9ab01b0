variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region of the repository."
  type        = string
}

variable "name" {
  description = "Name of the repository."
  type        = string
}

variable "kms_key" {
  description = "Key that encrypts the images; null for Google's own."
  type        = object({ id = string })
  default     = null
}

variable "labels" {
  description = "Labels of the repository."
  type        = map(string)
}
