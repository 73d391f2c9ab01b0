variable "project" {
  description = "Id of the project."
  type        = string
}

variable "name" {
  description = "Name of the subscription."
  type        = string
}

variable "topic" {
  description = "Id of the topic."
  type        = string
}

variable "dead_letter_topic" {
  description = "Id of the topic for messages that were tried `max_attempts` times; null to try for as long as they are kept."
  type        = string
  default     = null
}

variable "endpoint" {
  description = "URL that messages are pushed to."
  type        = string
}

variable "audience" {
  description = "Audience of the token that comes with each push."
  type        = string
}

variable "push_account" {
  description = "E-mail address of the service account whose token comes with each push."
  type        = string
}

variable "pubsub_agent" {
  description = "IAM member that Pub/Sub acts as."
  type        = string
}

variable "timeout_s" {
  description = "How long a push may take before the message is delivered again."
  type        = number

  validation {
    condition     = var.timeout_s >= 10 && var.timeout_s <= 600
    error_message = "Pub/Sub waits for 10 to 600 seconds."
  }
}

variable "max_attempts" {
  description = "How often a message is tried before it is a dead letter."
  type        = number

  validation {
    condition     = var.max_attempts >= 5 && var.max_attempts <= 100
    error_message = "Pub/Sub tries 5 to 100 times."
  }
}

variable "backoff_s" {
  description = "Seconds between tries: at the first, and at the most."
  type        = object({ minimum = number, maximum = number })
  default     = { minimum = 5, maximum = 600 }

  validation {
    condition     = var.backoff_s.minimum >= 0 && var.backoff_s.minimum <= var.backoff_s.maximum && var.backoff_s.maximum <= 600
    error_message = "Pub/Sub waits for 0 to 600 seconds between tries."
  }
}

variable "retention_days" {
  description = "How long a message that is not acknowledged is kept."
  type        = number
  default     = 31

  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 31
    error_message = "Pub/Sub keeps messages for 1 to 31 days."
  }
}

variable "labels" {
  description = "Labels of the subscription."
  type        = map(string)
}
