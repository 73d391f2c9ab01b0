variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region of the job."
  type        = string
}

variable "name" {
  description = "Name of the job."
  type        = string
}

variable "schedule" {
  description = "When the function is called, as cron says it; once a minute is the most often."
  type        = string

  validation {
    condition     = length(split(" ", var.schedule)) == 5
    error_message = "Minute, hour, day of the month, month and day of the week, each after a space."
  }
}

variable "timeout_s" {
  description = "How long a call may take."
  type        = number

  validation {
    condition     = var.timeout_s >= 15 && var.timeout_s <= 1800
    error_message = "Scheduler waits for 15 to 1800 seconds."
  }
}

variable "endpoint" {
  description = "URL of the function."
  type        = string
}

variable "audience" {
  description = "Audience of the token that comes with each call."
  type        = string
}

variable "timer_account" {
  description = "E-mail address of the service account whose token comes with each call."
  type        = string
}
