# ---- where

variable "project" {
  description = "Id of the Google Cloud project that the system lives in."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project's id has 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  description = "Region that everything runs in and all data stays in."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region such as europe-west1."
  }
}

variable "name" {
  description = "Short name of this system, which all names start with; another name is another system in the same project."
  type        = string
  default     = "axiom"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,5}[a-z0-9]$", var.name))
    error_message = "2 to 7 lower-case letters, digits and hyphens: names of service accounts have no room for more."
  }
}

variable "labels" {
  description = "Labels of everything that can have some, besides app and component."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "Lower-case letters, digits, '_' and '-' alone."
  }
}

variable "protect" {
  description = "Whether Terraform refuses to delete what holds data and what takes it in. False deletes buckets with all that is in them."
  type        = bool
  default     = true
}

# ---- what runs

variable "images" {
  description = "The two images, each by digest, as cloudbuild.yaml pushes them."
  type        = object({ functions = string, gateway = string })

  validation {
    condition     = alltrue([for image in [var.images.functions, var.images.gateway] : can(regex("@sha256:[0-9a-f]{64}$", image))])
    error_message = "An image is named by its digest (…@sha256:…): a tag may be another image tomorrow."
  }
}

variable "scale" {
  description = "How many processes of each function there may be, and how many always are. Each deliver-instance holds up to `deliveries_at_once` connections to destinations."
  type = object({
    max_instances      = optional(number, 50)
    min_instances      = optional(number, 0)
    deliveries_at_once = optional(number, 16)
  })
  default = {}

  validation {
    condition     = var.scale.max_instances >= 1 && var.scale.max_instances <= 1000 && var.scale.min_instances >= 0 && var.scale.min_instances <= var.scale.max_instances
    error_message = "1 to 1000 at the most, and no more at the least."
  }
  validation {
    condition     = var.scale.deliveries_at_once >= 1 && var.scale.deliveries_at_once <= 250
    error_message = "1 to 250 deliveries at once."
  }
}

variable "gateway" {
  description = <<-EOT
    The gateway for DICOM over TCP. `host` is worker-pool (Cloud Run, found by name), machines (found by a fixed address),
    or none (a gateway on premises). `modalities` are the ranges of addresses that may send to it. `more_ports` are those of listeners
    that the configuration has besides the one on `port`, such as 2762 for TLS: at others nobody is let in.
  EOT
  type = object({
    host       = optional(string, "worker-pool")
    ae_title   = optional(string, "AXIOM")
    port       = optional(number, 11112)
    more_ports = optional(set(number), [])
    instances  = optional(number, 1)
    cpus       = optional(number, 1)
    memory_mib = optional(number, 1024)
    address    = optional(string)
    modalities = optional(set(string), [])
  })
  default = {}

  validation {
    condition     = contains(["worker-pool", "machines", "none"], var.gateway.host)
    error_message = "The gateway's host is worker-pool, machines or none."
  }
  validation {
    condition     = can(regex("^[!-\\[\\]-~]([ -\\[\\]-~]{0,14}[!-\\[\\]-~])?$", var.gateway.ae_title))
    error_message = "An AE Title has 1 to 16 printable ASCII characters, no backslash, and no space at an end (PS3.5 6.2)."
  }
  validation {
    condition     = alltrue([for port in concat([var.gateway.port], tolist(var.gateway.more_ports)) : port >= 1024 && port <= 65535 && port != 8080])
    error_message = "A port from 1024 to 65535, and not 8080, which answers health checks."
  }
  validation {
    condition     = length(var.gateway.more_ports) <= 4 && !contains(var.gateway.more_ports, var.gateway.port)
    error_message = "At most four ports besides `port`: a load balancer has five."
  }
  validation {
    condition     = var.gateway.instances >= 1 && var.gateway.instances <= 20
    error_message = "1 to 20 gateways."
  }
  validation {
    condition     = var.gateway.address == null || var.gateway.host == "machines"
    error_message = "Only machines have a fixed address."
  }
}

variable "network" {
  description = "The network of the gateway, and of destinations with private addresses: `existing` names one that is there; otherwise one is made. `range` is the subnetwork's."
  type = object({
    existing   = optional(object({ network = string, subnetwork = string }))
    range      = optional(string, "10.20.0.0/24")
    dns_suffix = optional(string, "axiom.internal")
  })
  default = {}

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", var.network.dns_suffix))
    error_message = "A domain without a dot at its end, such as axiom.internal."
  }
}

variable "http" {
  description = <<-EOT
    Who may ask the API and DICOMweb: `people` are IAM members (group:…, serviceAccount:…); `from` is the network (internal), also a load
    balancer (load-balancer), or anywhere, always with a Google identity (anywhere). Besides, each request needs an API key. `front`
    makes that load balancer, with Identity-Aware Proxy: `kind` external has an address on the internet and a certificate of Google's for
    `domain`; internal has one in the network, a `certificate` of Certificate Manager that is yours, and proxies in `proxy_range`.
  EOT
  type = object({
    people = optional(set(string), [])
    from   = optional(string, "internal")
    front = optional(object({
      kind        = string
      domain      = string
      certificate = optional(string)
      proxy_range = optional(string, "10.20.1.0/26")
    }))
  })
  default = {}

  validation {
    condition     = var.http.front == null ? true : contains(["external", "internal"], var.http.front.kind) && can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.http.front.domain))
    error_message = "A front is external or internal, and has a domain such as dicom.example.org."
  }
  validation {
    condition     = var.http.front == null || var.http.from == "load-balancer"
    error_message = "A front is a load balancer: from = \"load-balancer\", or requests go past it."
  }

  validation {
    condition     = contains(["internal", "load-balancer", "anywhere"], var.http.from)
    error_message = "One of internal, load-balancer, anywhere."
  }
  validation {
    condition     = alltrue([for member in var.http.people : can(regex("^(user|group|serviceAccount|domain|principal|principalSet):", member))])
    error_message = "IAM members such as group:radiology-it@example.org; allUsers and allAuthenticatedUsers are nobody."
  }
}

variable "identity" {
  description = <<-EOT
    Whose ID tokens the API, DICOMweb and listeners with `user_identity.tokens` take, as docs/identity.md has it: those of `issuer` (Google, if
    null) for one of `audiences`. `login` has people sign in with a client of the issuer's: `client_secret` is its name in the secret store, and
    browsers reach us at `public_url`. Whoever has the address `admin_email` is an administrator. Without audiences and a client none are taken.
  EOT
  type = object({
    audiences   = optional(set(string), [])
    issuer      = optional(string)
    admin_email = optional(string)
    login       = optional(object({ client_id = string, client_secret = string, public_url = string }))
  })
  default = {}

  validation {
    condition     = alltrue([for audience in var.identity.audiences : can(regex("^[^\\s,]+$", audience))])
    error_message = "An audience has no spaces and no commas."
  }
  validation {
    condition     = alltrue([for url in [var.identity.issuer, try(var.identity.login.public_url, null)] : url == null ? true : can(regex("^https://[^/@?#\\s]+(/[^@?#\\s]*)?$", url))])
    error_message = "An issuer and a public URL are such as https://accounts.google.com."
  }
  validation {
    condition     = var.identity.admin_email == null ? true : can(regex("^[^@\\s]+@[^@\\s]+$", var.identity.admin_email))
    error_message = "An address of e-mail."
  }
  validation {
    condition     = var.identity.login == null ? true : can(regex("^[^\\s,]+$", var.identity.login.client_id)) && can(regex("^[A-Za-z0-9_-]+$", var.identity.login.client_secret))
    error_message = "A client has an id, and its secret a name in the secret store: letters, digits, '_' and '-'."
  }
}

# ---- where instances come from and go to

variable "destinations" {
  description = "Destinations that get a queue of their own, by their names in the configuration: one that is down then slows no other. `at_most_attempts` is how often a delivery is tried before it is given up. Let a queue run empty before its name is taken out: what waits there goes with it."
  type        = map(object({ at_most_attempts = optional(number, 100) }))
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.destinations) : can(regex("^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", name))])
    error_message = "A destination's name as the configuration has it."
  }
  validation {
    condition     = alltrue([for one in var.destinations : one.at_most_attempts >= 5 && one.at_most_attempts <= 100])
    error_message = "Pub/Sub tries 5 to 100 times."
  }
}

variable "landing" {
  description = "Whether there is a bucket that others put files into, which are then received; who may; and for how many days a file stays there."
  type = object({
    enabled   = optional(bool, false)
    uploaders = optional(set(string), [])
    days      = optional(number, 30)
  })
  default = {}

  validation {
    condition     = alltrue([for member in var.landing.uploaders : can(regex("^(user|group|serviceAccount|domain|principal|principalSet):", member))])
    error_message = "IAM members such as serviceAccount:pacs@…; allUsers and allAuthenticatedUsers are nobody."
  }
}

variable "dicom_stores" {
  description = "DICOM stores of the Healthcare API, by name. Each can be a destination; what others store in one that is a source is received from there."
  type        = map(object({ is_source = optional(bool, false) }))
  default     = {}
}

variable "gemini" {
  description = "Where Gemini is asked for standard terms and which model, once a standardizer of the configuration asks Vertex AI; null for nowhere: then no function may ask it. `location` is a region, or global."
  type        = object({ location = string, model = string })
  default     = null

  validation {
    condition     = var.gemini == null ? true : can(regex("^(global|[a-z]+-[a-z]+[0-9]+)$", var.gemini.location)) && can(regex("^gemini-[a-z0-9.-]+$", var.gemini.model))
    error_message = "A region such as europe-west1 or global, and a model such as gemini-2.5-flash."
  }
}

variable "expiring_buckets" {
  description = "Buckets of this project that destinations with `retain_days` write to: `clean_up` may list and delete objects there, and nothing else."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for bucket in var.expiring_buckets : can(regex("^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$", bucket))])
    error_message = "Names of buckets, without gs:// and without a folder."
  }
}

# ---- keeping

variable "storage" {
  description = "After how many days received files move to a cheaper class, and for how many days deleted ones can be brought back."
  type = object({
    tiers_days    = optional(object({ nearline = optional(number), coldline = optional(number), archive = optional(number) }), {})
    undelete_days = optional(number, 7)
  })
  default = {}
}

variable "kms_key" {
  description = "A key of yours in this region, by its id, that encrypts whatever is kept; null for Google's own keys."
  type        = object({ id = string })
  default     = null

  validation {
    condition     = var.kms_key == null ? true : startswith(var.kms_key.id, "projects/") && !strcontains(var.kms_key.id, "cryptoKeyVersions")
    error_message = "The id of a key (projects/…/locations/…/keyRings/…/cryptoKeys/…), not of one version of it."
  }
}

# ---- changing it

variable "builds" {
  description = <<-EOT
    Triggers of Cloud Build: pull requests are tested and planned, commits on `branch` are built and planned, and deployments wait for
    a person. `repository` is one that Cloud Build is connected to (projects/…/repositories/…). The accounts (e-mails) are made beforehand, for
    what deploys a system may not be what the system makes: docs/deploy.md says what each needs. Null for no triggers.
  EOT
  type = object({
    repository     = string
    plan_account   = string
    build_account  = string
    deploy_account = string
    branch         = optional(string, "main")
    state_bucket   = optional(string)
    variables_file = optional(string, "production.tfvars")
  })
  default = null

  validation {
    condition     = var.builds == null ? true : can(regex("^projects/[^/]+/locations/[^/]+/connections/[^/]+/repositories/[^/]+$", var.builds.repository))
    error_message = "A repository as Cloud Build knows it: projects/…/locations/…/connections/…/repositories/…"
  }
  validation {
    condition     = var.builds == null ? true : length(toset([var.builds.plan_account, var.builds.build_account, var.builds.deploy_account])) == 3
    error_message = "Three accounts: a pull request must not have the roles of a build, nor a build those of a deployment."
  }
}

# ---- guarding

variable "data_access_logs" {
  description = "Whether Cloud Audit Logs tell of every read and write of data in the Healthcare API, Cloud Storage and Firestore, besides those of configuration. They are paid for by the byte: docs/cost.md."
  type        = bool
  default     = false
}

variable "perimeter" {
  description = <<-EOT
    A perimeter of VPC Service Controls around the project: services that keep data answer nobody outside of it. `access_policy` is the number of the
    organization's policy; `access_levels` (accessPolicies/…/accessLevels/…) are where people and gateways on premises may come from;
    `enforced` false only logs what it would refuse. Null for no perimeter.
  EOT
  type = object({
    access_policy = string
    access_levels = optional(set(string), [])
    enforced      = optional(bool, false)
  })
  default = null

  validation {
    condition     = var.perimeter == null ? true : can(regex("^[0-9]+$", var.perimeter.access_policy))
    error_message = "An access policy is named by its number: gcloud access-context-manager policies list."
  }
  validation {
    condition     = var.perimeter == null ? true : alltrue([for level in var.perimeter.access_levels : can(regex("^accessPolicies/[0-9]+/accessLevels/\\w+$", level))])
    error_message = "Access levels are named accessPolicies/NUMBER/accessLevels/NAME."
  }
}

# ---- watching

variable "telemetry" {
  description = <<-EOT
    The collector that functions and the gateway send traces and metrics to, by OTLP over HTTP; null for none. At https://telemetry.googleapis.com
    (or another of Google's) each signs in as its own service account, which is given the roles to write them and nothing else. `in_network` is for a collector
    that has a private address: each function then has one too. `trace_sampling` is how many of all traces are sent, 0 to 1.
  EOT
  type = object({
    endpoint        = string
    in_network      = optional(bool, false)
    trace_sampling  = optional(number, 1)
    metrics_every_s = optional(number, 60)
  })
  default = null

  validation {
    condition     = var.telemetry == null ? true : can(regex("^https?://[^/@?#\\s]+(/[^@?#\\s]*)?$", var.telemetry.endpoint)) && !endswith(var.telemetry.endpoint, "/v1/traces")
    error_message = "A collector is such as http://10.1.0.20:4318, without /v1/traces."
  }
  validation {
    condition     = var.telemetry == null ? true : var.telemetry.trace_sampling >= 0 && var.telemetry.trace_sampling <= 1 && var.telemetry.metrics_every_s >= 1 && var.telemetry.metrics_every_s <= 86400
    error_message = "None to all of the traces (0 to 1), and metrics once in a second to a day."
  }
}

variable "audit_syslog" {
  description = <<-EOT
    The repository that audit messages are sent to by syslog (tls://repository.example:6514, tcp://…, udp://…), also at a private address; null
    for none. The others name secrets of this project, made beforehand, that hold files: `authorities` that the repository's certificate is
    checked against, and our own `certificate` and `private_key`. Only `clean_up`, which sends, may read them.
  EOT
  type = object({
    url         = string
    authorities = optional(string)
    certificate = optional(string)
    private_key = optional(string)
  })
  default = null

  validation {
    condition     = var.audit_syslog == null ? true : can(regex("^(tls|tcp|udp)://([A-Za-z0-9._-]+|\\[[0-9a-fA-F:]+\\])(:[0-9]{1,5})?$", var.audit_syslog.url))
    error_message = "A repository is such as tls://repository.example:6514."
  }
  validation {
    condition     = var.audit_syslog == null ? true : (var.audit_syslog.certificate == null) == (var.audit_syslog.private_key == null)
    error_message = "A certificate and its private key go together."
  }
  validation {
    condition     = var.audit_syslog == null ? true : startswith(var.audit_syslog.url, "tls:") || alltrue([for file in [var.audit_syslog.authorities, var.audit_syslog.certificate] : file == null])
    error_message = "Only tls:// has certificates."
  }
  validation {
    condition     = var.audit_syslog == null ? true : alltrue([for name in compact([var.audit_syslog.authorities, var.audit_syslog.certificate, var.audit_syslog.private_key]) : can(regex("^[A-Za-z0-9_-]{1,255}$", name))])
    error_message = "Secrets of this project, by their names alone."
  }
  validation {
    condition     = var.audit_syslog == null ? true : length(toset(compact([var.audit_syslog.authorities, var.audit_syslog.certificate, var.audit_syslog.private_key]))) == length(compact([var.audit_syslog.authorities, var.audit_syslog.certificate, var.audit_syslog.private_key]))
    error_message = "Each file is a secret of its own."
  }
}

variable "alerts" {
  description = "Addresses that are told when something is wrong, and when that is."
  type = object({
    emails     = optional(set(string), [])
    thresholds = optional(object({ exceptions_per_5_min = optional(number), queue_age_s = optional(number), delivery_s = optional(number), errors_per_5_min = optional(number), edge_waiting_s = optional(number), edge_silent_s = optional(number) }), {})
  })
  default = {}

  validation {
    condition     = alltrue([for address in var.alerts.emails : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "Addresses of e-mail."
  }
}

variable "budget" {
  description = "What a month may cost before the billing account's people are told; null for no budget."
  type        = object({ billing_account = string, monthly_amount = number })
  default     = null
}
