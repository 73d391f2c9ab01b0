variable "project_number" {
  description = "Number of the project that is within."
  type        = string
}

variable "name" {
  description = "Short name of the system, which the perimeter is named for."
  type        = string
}

variable "access_policy" {
  description = "Number of the organization's access policy."
  type        = string
}

variable "access_levels" {
  description = "Where callers from outside may come from: accessPolicies/…/accessLevels/…"
  type        = set(string)
}

variable "enforced" {
  description = "Whether it refuses; false for a dry run that logs."
  type        = bool
}
