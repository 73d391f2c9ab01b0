# What each function under functions/ is fed by, and what it may do. Everything about its service, its
# account and its roles follows from its entry here.

locals {
  # Where messages go that were tried as often as their subscription says.
  dead_letters = "dead-letters"

  # The topics of shared/messages.py, and three that Google's services publish to.
  topics = toset([
    "instance-received",
    "instance-accepted",
    "delivery-requested",
    "exception-raised",
    "job-requested",
    "commitment-requested",
    "standardization-requested",
    "object-finalized",
    "store-instance-changed",
    local.dead_letters,
  ])

  # subscribes_to  the topic whose messages are pushed to it
  # schedule       when Scheduler calls it instead, as cron says it
  # publishes_to   topics
  # landing        its role in the bucket that others put files into: objectViewer, objectCreator
  # http2          whether it takes requests of any size
  # objects        what it does in the bucket: none, read, create, delete
  # secrets        what it does with secrets that configuration names: none, read, manage
  # dicom_stores   its role in each DICOM store: dicomViewer, dicomEditor
  # asks_gemini    whether it asks Vertex AI, where that is switched on (var.gemini)
  # reaches_out    whether it reaches destinations and sources, which may have private addresses
  functions = {
    validate-instance = {
      subscribes_to = "instance-received"
      publishes_to  = ["instance-accepted", "exception-raised"]
      objects       = "read"
    }
    standardize-attributes = {
      subscribes_to = "standardization-requested"
      publishes_to  = ["instance-accepted", "exception-raised"]
      objects       = "read"
      secrets       = "read"
      reaches_out   = true
      asks_gemini   = true
      timeout_s     = 120
    }
    apply-rules = {
      subscribes_to = "instance-accepted"
      publishes_to  = ["instance-accepted", "delivery-requested", "standardization-requested", "exception-raised"]
      objects       = "read"
      secrets       = "read"
      reaches_out   = true # crosswalks in databases
    }
    deliver-instance = {
      subscribes_to = "delivery-requested"
      publishes_to  = ["exception-raised"]
      objects       = "read"
      secrets       = "read"
      reaches_out   = true
      dicom_stores  = "dicomEditor"
      max_attempts  = 100
      timeout_s     = 600
      memory_mib    = 1024
      concurrency   = var.scale.deliveries_at_once
    }
    record-exception = {
      subscribes_to = "exception-raised"
      publishes_to  = ["exception-raised"]
      objects       = "read"
    }
    record-dead-letter = {
      subscribes_to = local.dead_letters
      publishes_to  = ["instance-received", "instance-accepted", "standardization-requested", "delivery-requested", "job-requested", "commitment-requested", "exception-raised"]
      objects       = "read"
    }
    ingest-object = {
      subscribes_to = "object-finalized"
      publishes_to  = ["instance-received", "exception-raised"]
      objects       = "delete" # what it could not announce
      secrets       = "read"
      landing       = "objectViewer"
      memory_mib    = 1024
      timeout_s     = 600
    }
    ingest-store-instance = {
      subscribes_to = "store-instance-changed"
      publishes_to  = ["instance-received", "exception-raised"]
      objects       = "delete"
      secrets       = "read"
      dicom_stores  = "dicomViewer"
      memory_mib    = 1024
      timeout_s     = 600
    }
    run-job = {
      dicom_stores  = "dicomViewer" # reconciliation asks what is there
      subscribes_to = "job-requested"
      publishes_to  = ["job-requested", "instance-received", "instance-accepted", "delivery-requested", "standardization-requested", "exception-raised"]
      objects       = "delete"
      secrets       = "read"
      reaches_out   = true
      timeout_s     = 600
      concurrency   = 4
    }
    report-commitment = {
      subscribes_to = "commitment-requested"
      publishes_to  = ["exception-raised"]
      objects       = "read"
      secrets       = "read"
      reaches_out   = true
      max_attempts  = 20
      timeout_s     = 120
    }
    complete-studies = {
      schedule     = "* * * * *"
      publishes_to = ["instance-accepted", "delivery-requested", "exception-raised", "commitment-requested"]
      objects      = "read"
      secrets      = "read"
      reaches_out  = true
      timeout_s    = 300
      concurrency  = 1
    }
    poll-sources = {
      schedule     = "* * * * *"
      publishes_to = ["instance-received", "exception-raised"]
      objects      = "delete"
      secrets      = "read"
      dicom_stores = "dicomViewer"
      reaches_out  = true
      memory_mib   = 1024
      timeout_s    = 600
      concurrency  = 1
    }
    clean-up = {
      schedule     = "* * * * *"
      publishes_to = ["exception-raised"]
      objects      = "delete"
      reaches_out  = var.audit_syslog != null # sends audit messages
      timeout_s    = 120
      concurrency  = 1
    }
    api = {
      publishes_to = ["instance-received", "instance-accepted", "delivery-requested", "standardization-requested", "exception-raised", "job-requested", "commitment-requested"]
      objects      = "delete"
      secrets      = "manage"
      dicom_stores = "dicomViewer"
      reaches_out  = true # asks whether a destination is there
      memory_mib   = 1024
      concurrency  = 32
      timeout_s    = 300
      has_api_keys = true
      landing      = "objectCreator" # uploads that clients begin here go there
    }
    dicomweb = {
      publishes_to = ["instance-received", "exception-raised", "commitment-requested"]
      objects      = "delete"
      secrets      = "read"
      reaches_out  = true
      memory_mib   = 1024
      concurrency  = 16
      timeout_s    = 3600
      has_api_keys = true
      http2        = true
    }
  }

  function = {
    for name, given in local.functions : name => merge({
      subscribes_to = null
      schedule      = null
      objects       = "none"
      secrets       = "none"
      dicom_stores  = null
      reaches_out   = false
      asks_gemini   = false
      max_attempts  = 20
      timeout_s     = 60
      memory_mib    = 512
      concurrency   = 16
      has_api_keys  = false
      landing       = null
      http2         = false
    }, given)
  }

  gateway_publishes_to = ["instance-received", "exception-raised", "commitment-requested"]
}
