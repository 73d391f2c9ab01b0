variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region that messages stay in."
  type        = string
}

variable "name" {
  description = "Name of the topic."
  type        = string
}

variable "publishers" {
  description = "IAM members that publish, by a name of ours."
  type        = map(string)
}

variable "keep_copy" {
  description = "Whether each message is kept for a person, for 31 days."
  type        = bool
  default     = false
}

variable "retention_days" {
  description = "How long the topic keeps messages after they were published, so that a subscription can seek back."
  type        = number
  default     = 7

  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 31
    error_message = "Pub/Sub keeps messages for 1 to 31 days."
  }
}

variable "kms_key" {
  description = "Key that encrypts the messages; null for Google's own."
  type        = object({ id = string })
  default     = null
}

variable "labels" {
  description = "Labels of the topics and subscriptions."
  type        = map(string)
}
