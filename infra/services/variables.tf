variable "project" {
  description = "Id of the project."
  type        = string
}

variable "project_number" {
  description = "Number of the project, which names of Google's own accounts hold."
  type        = string
}

variable "kms_key" {
  description = "Key that encrypts what is kept; null for Google's own keys."
  type        = object({ id = string })
  default     = null
}

variable "healthcare" {
  description = "Whether DICOM stores of the Healthcare API are used."
  type        = bool
}

variable "network" {
  description = "Whether a network is used: for a gateway, or for destinations with private addresses."
  type        = bool
}

variable "machines" {
  description = "Whether there are machines of Compute Engine, whose disks are encrypted."
  type        = bool
}

variable "budget" {
  description = "Whether a budget is kept."
  type        = bool
}

variable "gemini" {
  description = "Whether Vertex AI is used."
  type        = bool
  default     = false
}

variable "perimeter" {
  description = "Whether there is a perimeter of VPC Service Controls."
  type        = bool
  default     = false
}

variable "builds" {
  description = "Whether Cloud Build is used."
  type        = bool
  default     = false
}

variable "front" {
  description = "Whether Identity-Aware Proxy is used."
  type        = bool
  default     = false
}

variable "telemetry" {
  description = "Whether traces and metrics are sent to Google's own collector."
  type        = bool
  default     = false
}
