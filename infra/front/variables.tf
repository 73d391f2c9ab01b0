variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region of the services."
  type        = string
}

variable "name" {
  description = "Short name of the system, which all names start with."
  type        = string
}

variable "kind" {
  description = "Where the address is: external (on the internet) or internal (in the network)."
  type        = string

  validation {
    condition     = contains(["external", "internal"], var.kind)
    error_message = "One of external, internal."
  }
}

variable "domain" {
  description = "Name that people ask."
  type        = string
}

variable "services" {
  description = "Names of the two services on Cloud Run."
  type        = object({ api = string, dicomweb = string })
}

variable "dicomweb_path" {
  description = "Path that DICOMweb is below; all else is the API's."
  type        = string
  default     = "/api/v1/dicomweb"
}

variable "people" {
  description = "IAM members that Identity-Aware Proxy lets in."
  type        = set(string)
}

variable "certificate" {
  description = "Certificate of Certificate Manager in the region, for `kind` internal; Google makes the one of `kind` external."
  type        = string
  default     = null

  validation {
    condition     = (var.certificate != null) == (var.kind == "internal")
    error_message = "An internal load balancer needs a certificate of yours, and an external one has Google's."
  }
}

variable "network" {
  description = "Network and subnetwork of the address, for `kind` internal."
  type        = object({ network = string, subnetwork = string })
}

variable "proxy_range" {
  description = "Range of addresses of the load balancer's own proxies, for `kind` internal."
  type        = string
}

variable "labels" {
  description = "Labels of addresses and rules."
  type        = map(string)
}
