variables {
  project       = "demo"
  name          = "axiom"
  location      = "europe-west1"
  landing       = false
  landing_topic = "projects/demo/topics/axiom-object-finalized"
  protect       = true
  labels        = {}
}

run "tiers" {
  command = plan
  variables {
    tiers_days = { nearline = 30, archive = 365 }
  }

  assert {
    condition = [
      for rule in google_storage_bucket.received.lifecycle_rule : one(rule.condition).age
      if one(rule.action).type == "SetStorageClass"
    ] == [365, 30]
    error_message = "received files move as they age"
  }
  assert {
    condition = alltrue([
      for rule in google_storage_bucket.received.lifecycle_rule :
      one(rule.condition).with_state == "ARCHIVED" || one(rule.condition).matches_prefix == tolist(["temporary/"])
      if one(rule.action).type == "Delete"
    ])
    error_message = "age alone deletes no received file"
  }
  assert {
    condition     = google_storage_bucket.received.deletion_policy == "PREVENT"
    error_message = "Terraform refuses to delete the bucket"
  }
}

run "tiers_in_the_wrong_order" {
  command = plan
  variables {
    tiers_days = { nearline = 400, archive = 365 }
  }
  expect_failures = [var.tiers_days]
}

run "landing" {
  command = plan
  variables {
    landing = true
  }

  assert {
    condition     = google_storage_notification.landing[0].event_types == toset(["OBJECT_FINALIZE"])
    error_message = "each new file is announced, and nothing else"
  }
}
