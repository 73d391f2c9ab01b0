variable "project" {
  description = "Id of the project."
  type        = string
}

variable "project_number" {
  description = "Number of the project."
  type        = string
}

variable "billing_account" {
  description = "Billing account that pays."
  type        = string

  validation {
    condition     = can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "Three groups of six, such as 012345-6789AB-CDEF01."
  }
}

variable "monthly_amount" {
  description = "What a month may cost, in the billing account's currency."
  type        = number

  validation {
    condition     = var.monthly_amount >= 1
    error_message = "At least 1."
  }
}
