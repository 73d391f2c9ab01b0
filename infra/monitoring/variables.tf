variable "project" {
  description = "Id of the project."
  type        = string
}

variable "name" {
  description = "Short name of the system, which names of subscriptions and functions start with."
  type        = string
}

variable "gateway_host" {
  description = "What the gateway runs on: worker-pool, machines, none."
  type        = string
}

variable "emails" {
  description = "Addresses that alerts go to."
  type        = set(string)
}

variable "thresholds" {
  description = "When a person is called."
  type = object({
    exceptions_per_5_min = optional(number, 50)
    queue_age_s          = optional(number, 900)
    delivery_s           = optional(number, 60)
    errors_per_5_min     = optional(number, 5)
    edge_waiting_s       = optional(number, 14400)
    edge_silent_s        = optional(number, 1800)
  })
}

variable "labels" {
  description = "Labels of policies and channels."
  type        = map(string)
}
