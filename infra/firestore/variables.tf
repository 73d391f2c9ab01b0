variable "project" {
  description = "Id of the project."
  type        = string
}

variable "location" {
  description = "Region of the database."
  type        = string
}

variable "database" {
  description = "Name of the database."
  type        = string
}

variable "backup_days" {
  description = "For how many days daily backups are kept, besides the 7 days of point-in-time recovery."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 98
    error_message = "Firestore keeps daily backups for 1 to 98 days."
  }
}

variable "deletion_protection" {
  description = "Whether neither Terraform nor anybody else can delete the database."
  type        = bool
}

variable "kms_key" {
  description = "Key that encrypts the documents; null for Google's own."
  type        = object({ id = string })
  default     = null
}
