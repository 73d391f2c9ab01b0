terraform {
  # Write-only arguments keep secrets out of the state from 1.11 on.
  required_version = ">= 1.11"
  required_providers {
    google      = { source = "hashicorp/google", version = "~> 8.7" }
    google-beta = { source = "hashicorp/google-beta", version = "~> 8.7" }
    random      = { source = "hashicorp/random", version = "~> 3.9" }
  }
}
