# The database of documents, and the indexes that the queries of the code need: indexes.json, which
# the tests hold against every query that they see.

locals {
  definitions = jsondecode(file("${path.module}/indexes.json"))

  # One index for each; named for what it is, so that a new one touches no other.
  indexes = {
    for index in local.definitions.indexes :
    "${index.collectionGroup}: ${join(", ", [for field in index.fields : "${field.fieldPath} ${lower(field.order)}"])}" => index
  }
  overrides = { for field in local.definitions.fieldOverrides : "${field.collectionGroup}: ${field.fieldPath}" => field }
}

resource "google_firestore_database" "this" {
  project                           = var.project
  name                              = var.database
  location_id                       = var.location
  type                              = "FIRESTORE_NATIVE"
  concurrency_mode                  = "OPTIMISTIC"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = var.deletion_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = var.deletion_protection ? "PREVENT" : "DELETE"

  dynamic "cmek_config" {
    for_each = var.kms_key == null ? [] : [var.kms_key]
    content {
      kms_key_name = cmek_config.value.id
    }
  }
}

resource "google_firestore_index" "this" {
  for_each = local.indexes

  project     = var.project
  database    = google_firestore_database.this.name
  collection  = each.value.collectionGroup
  query_scope = each.value.queryScope

  dynamic "fields" {
    for_each = each.value.fields
    content {
      field_path = fields.value.fieldPath
      order      = fields.value.order
    }
  }
}

# Fields that nobody asks for are in no index, and documents go when they are of no more use.
resource "google_firestore_field" "this" {
  for_each = local.overrides

  project    = var.project
  database   = google_firestore_database.this.name
  collection = each.value.collectionGroup
  field      = each.value.fieldPath

  index_config {}

  dynamic "ttl_config" {
    for_each = try(each.value.ttl, false) ? [1] : []
    content {}
  }
}

resource "google_firestore_backup_schedule" "this" {
  project   = var.project
  database  = google_firestore_database.this.name
  retention = "${var.backup_days * 86400}s"

  daily_recurrence {}
}
