variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region of the triggers and of the system."
  type        = string
}

variable "name" {
  description = "Short name of the system, which names of triggers start with."
  type        = string
}

variable "repository" {
  description = "The repository as Cloud Build knows it: projects/…/locations/…/connections/…/repositories/…"
  type        = string
}

variable "branch" {
  description = "The branch that is deployed from."
  type        = string
}

variable "state_bucket" {
  description = "Bucket of Terraform's state, of plans that wait, and of the file of values."
  type        = string
}

variable "variables_file" {
  description = "Name of the file of values in that bucket."
  type        = string
}

variable "plan_account" {
  description = "E-mail of the account that pull requests are tested and planned as; it reads and writes nothing."
  type        = string
}

variable "build_account" {
  description = "E-mail of the account that builds, pushes and plans."
  type        = string
}

variable "deploy_account" {
  description = "E-mail of the account that applies."
  type        = string
}
