# A dataset of the Healthcare API with DICOM stores, each of which says what is stored in it.

resource "google_healthcare_dataset" "this" {
  project   = var.project
  name      = var.name
  location  = var.location
  time_zone = "UTC"

  dynamic "encryption_spec" {
    for_each = var.kms_key == null ? [] : [var.kms_key]
    content {
      kms_key_name = encryption_spec.value.id
    }
  }
}

resource "google_healthcare_dicom_store" "this" {
  for_each = var.stores

  dataset         = google_healthcare_dataset.this.id
  name            = each.key
  labels          = var.labels
  deletion_policy = var.deletion_protection ? "PREVENT" : "DELETE"

  dynamic "notification_config" {
    for_each = each.value.is_source ? [1] : []
    content {
      pubsub_topic         = var.topic
      send_for_bulk_import = true
    }
  }
}

locals {
  grants = {
    for pair in setproduct(keys(var.stores), keys(var.members)) :
    "${pair[0]} for ${pair[1]}" => merge(var.members[pair[1]], { store = pair[0] })
  }
}

resource "google_healthcare_dicom_store_iam_member" "this" {
  for_each = local.grants

  dicom_store_id = google_healthcare_dicom_store.this[each.value.store].id
  role           = each.value.role
  member         = each.value.member
}
