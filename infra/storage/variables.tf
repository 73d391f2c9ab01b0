variable "project" {
  description = "Id of the project, which the buckets' names start with: they are unique in the world."
  type        = string
}

variable "name" {
  description = "Short name of the system."
  type        = string
}

variable "location" {
  description = "Region of the buckets."
  type        = string
}

variable "tiers_days" {
  description = "After how many days a received file moves to a cheaper class; null for never."
  type        = object({ nearline = optional(number), coldline = optional(number), archive = optional(number) })
  default     = {}

  validation {
    condition = (
      coalesce(var.tiers_days.nearline, 1) <= coalesce(var.tiers_days.coldline, 100000)
      && coalesce(var.tiers_days.coldline, var.tiers_days.nearline, 1) <= coalesce(var.tiers_days.archive, 100000)
    )
    error_message = "A cheaper class comes later: nearline, then coldline, then archive."
  }
}

variable "undelete_days" {
  description = "For how many days an object that was deleted can be brought back; 0 for not at all."
  type        = number
  default     = 7

  validation {
    condition     = var.undelete_days == 0 || (var.undelete_days >= 7 && var.undelete_days <= 90)
    error_message = "Cloud Storage keeps deleted objects for 7 to 90 days, or not at all (0)."
  }
}

variable "landing" {
  description = "Whether there is a bucket that others put files into."
  type        = bool
}

variable "landing_days" {
  description = "For how many days files stay there."
  type        = number
  default     = 30

  validation {
    condition     = var.landing_days >= 1
    error_message = "At least one day."
  }
}

variable "landing_topic" {
  description = "Topic that is told of each file there."
  type        = string
}

variable "uploaders" {
  description = "IAM members that may put files there."
  type        = set(string)
  default     = []
}

variable "protect" {
  description = "Whether Terraform refuses to delete the buckets; if not, what they hold goes with them."
  type        = bool
}

variable "kms_key" {
  description = "Key that encrypts the objects; null for Google's own."
  type        = object({ id = string })
  default     = null
}

variable "labels" {
  description = "Labels of the buckets."
  type        = map(string)
}
