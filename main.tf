# Axiom Flow on Google Cloud: what this file composes, modules below infra/ make. A function's entry
# in functions.tf says what it is fed by and what it may do; docs/deploy.md says how to begin.

locals {
  labels = merge(var.labels, { app = "axiom-flow", system = var.name })

  ingress = {
    internal      = "INGRESS_TRAFFIC_INTERNAL_ONLY"
    load-balancer = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
    anywhere      = "INGRESS_TRAFFIC_ALL"
  }[var.http.from]

  # The first is the environment's listener.
  dimse_ports = concat([var.gateway.port], [for port in sort(tolist(var.gateway.more_ports)) : tonumber(port)])

  # Behind the front it is Identity-Aware Proxy that calls, for people whom it has looked at.
  callers_of_api = var.http.front == null ? var.http.people : ["serviceAccount:service-${data.google_project.this.number}@gcp-sa-iap.iam.gserviceaccount.com"]

  # What every process of the system is told; shared/adapters/cloud/environment.py reads it.
  environment = merge(local.gemini, local.telemetry, local.audit, {
    AXIOM_PLATFORM      = "cloud"
    AXIOM_PROJECT       = var.project
    AXIOM_BUCKET        = module.storage.received
    AXIOM_DATABASE      = module.firestore.name
    AXIOM_TOPIC_PREFIX  = "${var.name}-"
    AXIOM_SECRET_PREFIX = "${var.name}-"
    AXIOM_OIDC          = "platform" # Cloud Run has checked the token's signature
    AXIOM_CALLERS       = join(",", values(local.callers))
    # Where a new system delivers to; the configuration says it from then on.
    AXIOM_DICOM_STORE = length(local.kept_stores) == 0 ? "" : "projects/${var.project}/locations/${var.region}/datasets/${var.name}/dicomStores/${local.kept_stores[0]}"
  })

  gemini = var.gemini == null ? {} : {
    AXIOM_VERTEX_LOCATION = var.gemini.location
    AXIOM_VERTEX_MODEL    = var.gemini.model
  }

  telemetry = var.telemetry == null ? {} : {
    AXIOM_OTLP_ENDPOINT         = var.telemetry.endpoint
    AXIOM_TRACE_SAMPLING        = tostring(var.telemetry.trace_sampling)
    OTEL_METRIC_EXPORT_INTERVAL = tostring(var.telemetry.metrics_every_s * 1000)
  }

  # Whoever audits keeps what is to be sent; `clean_up` alone sends, and needs the files.
  audit = var.audit_syslog == null ? {} : { AXIOM_AUDIT_SYSLOG = var.audit_syslog.url }
  audit_files = var.audit_syslog == null ? {} : { for name, secret in {
    AXIOM_AUDIT_SYSLOG_CA          = var.audit_syslog.authorities
    AXIOM_AUDIT_SYSLOG_CERTIFICATE = var.audit_syslog.certificate
    AXIOM_AUDIT_SYSLOG_KEY         = var.audit_syslog.private_key
  } : name => secret if secret != null }

  # What everybody is told whom people ask, and what the API alone is, where they sign in.
  identity = { for name, value in {
    AXIOM_OIDC_AUDIENCES = join(",", setunion(var.identity.audiences, var.identity.login[*].client_id))
    AXIOM_OIDC_ISSUER    = var.identity.issuer
    AXIOM_ADMIN_EMAIL    = var.identity.admin_email
  } : name => value if value != null && value != "" }
  login = var.identity.login == null ? {} : {
    AXIOM_OIDC_CLIENT_ID     = var.identity.login.client_id
    AXIOM_OIDC_CLIENT_SECRET = var.identity.login.client_secret
    AXIOM_PUBLIC_URL         = var.identity.login.public_url
  }

  kept_stores = sort([for name, store in var.dicom_stores : name if !store.is_source])
}

data "google_project" "this" {
  project_id = var.project
}

module "services" {
  source = "./infra/services"

  project        = var.project
  project_number = data.google_project.this.number
  kms_key        = var.kms_key
  healthcare     = length(var.dicom_stores) > 0
  network        = true
  machines       = var.gateway.host == "machines"
  budget         = var.budget != null
  gemini         = var.gemini != null
  perimeter      = var.perimeter != null
  telemetry      = local.is_googles_collector
  builds         = var.builds != null
  front          = var.http.front != null
}

# ---- what is kept

module "storage" {
  source = "./infra/storage"

  project       = var.project
  name          = var.name
  location      = var.region
  tiers_days    = var.storage.tiers_days
  undelete_days = var.storage.undelete_days
  landing       = var.landing.enabled
  landing_days  = var.landing.days
  landing_topic = module.topics["object-finalized"].id
  uploaders     = var.landing.uploaders
  protect       = var.protect
  kms_key       = module.services.kms_key
  labels        = merge(local.labels, { component = "storage" })
}

module "firestore" {
  source = "./infra/firestore"

  project             = var.project
  location            = var.region
  database            = var.name
  deletion_protection = var.protect
  kms_key             = module.services.kms_key
}

module "secrets" {
  source = "./infra/secrets"

  project             = var.project
  region              = var.region
  prefix              = "${var.name}-"
  deletion_protection = var.protect
  kms_key             = module.services.kms_key
  labels              = merge(local.labels, { component = "secrets" })
}

module "healthcare" {
  source = "./infra/healthcare"
  count  = length(var.dicom_stores) > 0 ? 1 : 0

  project             = var.project
  name                = var.name
  location            = var.region
  stores              = var.dicom_stores
  members             = { for name, function in local.function : name => { member = module.functions[name].member, role = "roles/healthcare.${function.dicom_stores}" } if function.dicom_stores != null }
  topic               = module.topics["store-instance-changed"].id
  deletion_protection = var.protect
  kms_key             = module.services.kms_key
  labels              = merge(local.labels, { component = "healthcare" })
}

module "registry" {
  source = "./infra/registry"

  project = var.project
  region  = var.region
  name    = var.name
  kms_key = module.services.kms_key
  labels  = merge(local.labels, { component = "registry" })
}

# Google's own role would also let it read and write there. A role of ours is good in this project alone.
resource "google_project_iam_custom_role" "expires_objects" {
  count = length(var.expiring_buckets) == 0 ? 0 : 1

  project     = var.project
  role_id     = replace("${var.name}_object_expirer", "-", "_")
  title       = "Axiom Flow: delete objects"
  description = "Lists objects and deletes them, and reads none."
  permissions = ["storage.objects.list", "storage.objects.delete"]
}

resource "google_storage_bucket_iam_member" "expires_objects" {
  for_each = var.expiring_buckets

  bucket = each.key
  role   = google_project_iam_custom_role.expires_objects[0].id
  member = module.functions["clean-up"].member
}

# ---- messages

# One account calls functions for Pub/Sub, another for Scheduler; neither may do anything else.
resource "google_service_account" "caller" {
  for_each = { push = "Pub/Sub", timer = "Cloud Scheduler" }

  project      = var.project
  account_id   = "${var.name}-${each.key}"
  display_name = "Axiom Flow: calls of ${each.value}"
  description  = "What ${each.value} calls functions as."
}

locals {
  # Known before the accounts are made, so that a plan shows what functions are told.
  callers = { for name, account in google_service_account.caller : name => "${account.account_id}@${account.project}.iam.gserviceaccount.com" }

  publishers = {
    for topic in local.topics : topic => merge(
      { for name, function in local.function : name => module.functions[name].member if contains(function.publishes_to, topic) },
      contains(local.gateway_publishes_to, topic) ? { gateway = module.gateway.member } : {},
      topic == local.dead_letters ? { pubsub = module.services.pubsub_agent } : {},
      topic == "object-finalized" && var.landing.enabled ? { storage = module.services.storage_agent } : {},
      topic == "store-instance-changed" && length(var.dicom_stores) > 0 ? { healthcare = module.services.healthcare_agent } : {},
    )
  }
}

module "topics" {
  source   = "./infra/topic"
  for_each = local.topics

  project    = var.project
  region     = var.region
  name       = "${var.name}-${each.key}"
  publishers = local.publishers[each.key]
  kms_key    = module.services.kms_key
  keep_copy  = each.key == local.dead_letters
  labels     = merge(local.labels, { component = "messages" })
}

module "pushes" {
  source   = "./infra/push"
  for_each = { for name, function in local.function : name => function if function.subscribes_to != null }

  project           = var.project
  name              = "${var.name}-${each.key}"
  topic             = module.topics[each.value.subscribes_to].id
  dead_letter_topic = each.value.subscribes_to == local.dead_letters ? null : module.topics[local.dead_letters].id
  endpoint          = module.functions[each.key].url
  audience          = module.functions[each.key].audience
  push_account      = local.callers["push"]
  pubsub_agent      = module.services.pubsub_agent
  timeout_s         = each.value.timeout_s
  max_attempts      = each.value.max_attempts
  labels            = merge(local.labels, { component = "messages" })
}

# A destination with a queue of its own: the message bus publishes to such a topic where there is one.
module "lanes" {
  source   = "./infra/topic"
  for_each = var.destinations

  project    = var.project
  region     = var.region
  name       = "${var.name}-delivery-requested.${each.key}"
  publishers = local.publishers["delivery-requested"]
  kms_key    = module.services.kms_key
  labels     = merge(local.labels, { component = "messages" })
}

module "lane_pushes" {
  source   = "./infra/push"
  for_each = var.destinations

  project           = var.project
  name              = "${var.name}-deliver-instance.${each.key}"
  topic             = module.lanes[each.key].id
  dead_letter_topic = module.topics[local.dead_letters].id
  endpoint          = module.functions["deliver-instance"].url
  audience          = module.functions["deliver-instance"].audience
  push_account      = local.callers["push"]
  pubsub_agent      = module.services.pubsub_agent
  timeout_s         = local.function["deliver-instance"].timeout_s
  max_attempts      = each.value.at_most_attempts
  labels            = merge(local.labels, { component = "messages" })
}

# ---- what runs

module "functions" {
  source   = "./infra/function"
  for_each = local.function

  project             = var.project
  project_number      = data.google_project.this.number
  region              = var.region
  name                = "${var.name}-${each.key}"
  entry_point         = replace(each.key, "-", "_")
  image               = var.images.functions
  deletion_protection = var.protect
  kms_key             = module.services.kms_key
  labels              = merge(local.labels, { component = each.key })

  environment = merge(
    local.environment,
    each.value.has_api_keys ? local.identity : {},
    each.key == "api" ? local.login : {},
    each.value.http2 ? { AXIOM_HTTP2 = "true" } : {},
    each.value.landing != null && var.landing.enabled ? { AXIOM_LANDING_BUCKETS = module.storage.landing } : {},
  )
  http2              = each.value.http2
  landing_bucket     = each.value.landing != null && var.landing.enabled ? { name = module.storage.landing, role = "roles/storage.${each.value.landing}" } : null
  secret_environment = each.value.has_api_keys ? { AXIOM_API_KEY = module.secrets.ids["api-key"] } : {}
  secret_files       = each.key == "clean-up" ? local.audit_files : {}

  caller = (
    each.value.subscribes_to != null ? { account = local.callers["push"] }
    : each.value.schedule != null ? { account = local.callers["timer"] }
    : null
  )
  people  = each.value.has_api_keys ? local.callers_of_api : []
  ingress = each.value.has_api_keys ? local.ingress : "INGRESS_TRAFFIC_INTERNAL_ONLY"

  limits = {
    timeout_s     = each.value.timeout_s
    memory_mib    = each.value.memory_mib
    cpus          = 1
    concurrency   = each.value.concurrency
    min_instances = each.value.schedule == null ? var.scale.min_instances : 0
    max_instances = each.value.schedule == null ? var.scale.max_instances : 1
  }

  network             = each.value.reaches_out || local.is_collector_in_network ? module.network : null
  bucket              = module.storage.received
  objects             = each.value.objects
  database            = module.firestore.condition_name
  secrets             = each.value.secrets
  secret_prefix       = "${var.name}-"
  secret_custom_roles = module.secrets.custom_roles
  asks_gemini         = each.value.asks_gemini && var.gemini != null
}

module "front" {
  source = "./infra/front"
  count  = var.http.front == null ? 0 : 1

  project     = var.project
  region      = var.region
  name        = var.name
  kind        = var.http.front.kind
  domain      = var.http.front.domain
  certificate = var.http.front.certificate
  proxy_range = var.http.front.proxy_range
  services    = { api = module.functions["api"].name, dicomweb = module.functions["dicomweb"].name }
  people      = var.http.people
  network     = module.network
  labels      = merge(local.labels, { component = "front" })

  depends_on = [module.services]
}

module "timers" {
  source   = "./infra/timer"
  for_each = { for name, function in local.function : name => function if function.schedule != null }

  project       = var.project
  region        = var.region
  name          = "${var.name}-${each.key}"
  schedule      = each.value.schedule
  timeout_s     = each.value.timeout_s
  endpoint      = module.functions[each.key].url
  audience      = module.functions[each.key].audience
  timer_account = local.callers["timer"]
}

module "network" {
  source = "./infra/network"

  project     = var.project
  region      = var.region
  name        = var.name
  existing    = var.network.existing
  range       = var.network.range
  modalities  = var.gateway.host == "none" ? [] : var.gateway.modalities
  dimse_ports = [for port in local.dimse_ports : tostring(port)]
  health_port = var.gateway.host == "machines" ? 8080 : null
  labels      = merge(local.labels, { component = "network" })

  depends_on = [module.services]
}

module "gateway" {
  source = "./infra/gateway"

  project             = var.project
  project_number      = data.google_project.this.number
  region              = var.region
  name                = "${var.name}-gateway"
  host                = var.gateway.host
  image               = var.images.gateway
  environment         = merge(local.environment, local.identity)
  ae_title            = var.gateway.ae_title
  dimse_ports         = local.dimse_ports
  instances           = var.gateway.instances
  cpus                = var.gateway.cpus
  memory_mib          = var.gateway.memory_mib
  address             = var.gateway.address
  dns_suffix          = var.network.dns_suffix
  network             = module.network
  repository          = var.name
  bucket              = module.storage.received
  database            = module.firestore.condition_name
  secret_prefix       = "${var.name}-"
  deletion_protection = var.protect
  kms_key             = module.services.kms_key
  labels              = merge(local.labels, { component = "gateway" })
}

# ---- changing it

module "builds" {
  source = "./infra/builds"
  count  = var.builds == null ? 0 : 1

  project        = var.project
  region         = var.region
  name           = var.name
  repository     = var.builds.repository
  branch         = var.builds.branch
  state_bucket   = coalesce(var.builds.state_bucket, "${var.project}-terraform")
  variables_file = var.builds.variables_file
  plan_account   = var.builds.plan_account
  build_account  = var.builds.build_account
  deploy_account = var.builds.deploy_account

  depends_on = [module.services]
}

# ---- guarding

module "data_access_logs" {
  source = "./infra/data_access_logs"
  count  = var.data_access_logs ? 1 : 0

  project = var.project
}

module "perimeter" {
  source = "./infra/perimeter"
  count  = var.perimeter == null ? 0 : 1

  project_number = data.google_project.this.number
  name           = var.name
  access_policy  = var.perimeter.access_policy
  access_levels  = var.perimeter.access_levels
  enforced       = var.perimeter.enforced

  depends_on = [module.services]
}

# ---- watching

locals {
  is_googles_collector    = var.telemetry == null ? false : can(regex("^https?://[^/:]+[.]googleapis[.]com(:[0-9]+)?(/|$)", var.telemetry.endpoint)) # as shared/adapters/otlp/settings.py has it
  is_collector_in_network = var.telemetry == null ? false : var.telemetry.in_network

  exporters = local.is_googles_collector ? merge({ for name, function in module.functions : name => function.member }, { gateway = module.gateway.member }) : {}
}

# Google has no role for less than the project's traces and metrics.
resource "google_project_iam_member" "telemetry" {
  for_each = { for pair in setproduct(keys(local.exporters), ["tracesWriter", "metricsWriter"]) : "${pair[0]} ${pair[1]}" => { exporter = pair[0], role = pair[1] } }

  project = var.project
  role    = "roles/telemetry.${each.value.role}"
  member  = local.exporters[each.value.exporter]
}

module "monitoring" {
  source = "./infra/monitoring"

  project      = var.project
  name         = var.name
  gateway_host = var.gateway.host
  emails       = var.alerts.emails
  thresholds   = var.alerts.thresholds
  labels       = merge(local.labels, { component = "monitoring" })

  depends_on = [module.services]
}

module "budget" {
  source = "./infra/budget"
  count  = var.budget == null ? 0 : 1

  project         = var.project
  project_number  = data.google_project.this.number
  billing_account = var.budget.billing_account
  monthly_amount  = var.budget.monthly_amount

  depends_on = [module.services]
}
