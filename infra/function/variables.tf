variable "project" {
  description = "Id of the project."
  type        = string
}

variable "project_number" {
  description = "Number of the project, which names of secrets hold."
  type        = string
}

variable "region" {
  description = "Region of the service."
  type        = string
}

variable "name" {
  description = "Name of the service, of its account, and audience of tokens for it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.name))
    error_message = "A service account's name has 6 to 30 characters."
  }
}

variable "entry_point" {
  description = "The folder below functions/ that the service runs."
  type        = string
}

variable "image" {
  description = "Image of the functions, by digest."
  type        = string
}

variable "environment" {
  description = "What every process of the system is told."
  type        = map(string)
}

variable "secret_environment" {
  description = "Secrets that the process is told in its environment: id of each by the name of its variable."
  type        = map(string)
  default     = {}
}

variable "secret_files" {
  description = "Secrets that the process reads as files: name of each by that of the variable which says where its file is."
  type        = map(string)
  default     = {}
}

variable "caller" {
  description = "E-mail address of the service account that calls it for Pub/Sub or Scheduler; null if people do."
  type        = object({ account = string })
  default     = null
}

variable "people" {
  description = "IAM members that may call it."
  type        = set(string)
  default     = []
}

variable "ingress" {
  description = "Where requests may come from."
  type        = string
  default     = "INGRESS_TRAFFIC_INTERNAL_ONLY"
}

variable "http2" {
  description = "Whether the process speaks HTTP/2, so that a request may be of any size."
  type        = bool
  default     = false
}

variable "limits" {
  description = "What one process gets, and how many there may be."
  type = object({
    timeout_s     = number
    memory_mib    = number
    cpus          = number
    concurrency   = number
    min_instances = number
    max_instances = number
  })

  validation {
    condition     = var.limits.timeout_s >= 10 && var.limits.timeout_s <= 3600
    error_message = "Cloud Run gives a request 1 hour at the most, and we never less than 10 s."
  }
  validation {
    condition     = var.limits.min_instances >= 0 && var.limits.min_instances <= var.limits.max_instances
    error_message = "There cannot be fewer processes at the most than at the least."
  }
}

variable "network" {
  description = "Network and subnetwork through which private addresses are reached; null if none is."
  type        = object({ network = string, subnetwork = string })
  default     = null
}

variable "bucket" {
  description = "Name of the bucket of received files and configuration."
  type        = string
}

variable "objects" {
  description = "What the function does there: none, read, create (and read), delete (and both)."
  type        = string

  validation {
    condition     = contains(["none", "read", "create", "delete"], var.objects)
    error_message = "One of none, read, create, delete."
  }
}

variable "landing_bucket" {
  description = "The bucket that others put files into, and what the function's role is there; null for none."
  type        = object({ name = string, role = string })
  default     = null
}

variable "database" {
  description = "Firestore database, as IAM conditions name it."
  type        = string
}

variable "secrets" {
  description = "What the function does with secrets that configuration names: none, read, manage."
  type        = string

  validation {
    condition     = contains(["none", "read", "manage"], var.secrets)
    error_message = "One of none, read, manage."
  }
}

variable "secret_prefix" {
  description = "What the names of all our secrets start with."
  type        = string
}

variable "secret_custom_roles" {
  description = "Roles of ours to make a secret and to delete one."
  type        = object({ creator = string, deleter = string })
}

variable "kms_key" {
  description = "Key that encrypts the deployed image; null for Google's own."
  type        = object({ id = string })
  default     = null
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the service."
  type        = bool
}

variable "labels" {
  description = "Labels of the service."
  type        = map(string)
}

variable "asks_gemini" {
  description = "Whether it may ask models of Vertex AI."
  type        = bool
  default     = false
}
