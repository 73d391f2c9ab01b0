# What Cloud Build does when: a pull request is tested and planned, a commit on the branch is built
# and planned, and a deployment waits for a person.

locals {
  at = { _REGION = var.region, _NAME = var.name, _STATE_BUCKET = var.state_bucket, _VARIABLES = var.variables_file }

  on_events = {
    build = { file = "cloudbuild.yaml", description = "Tests, builds, scans, pushes and plans what is on ${var.branch}", substitutions = { _DEPLOY_TRIGGER = "${var.name}-deploy" } }
    plan  = { file = "cloudbuild.plan.yaml", description = "Tests a pull request, and plans it with the images that run", substitutions = {} }
  }
}

resource "google_cloudbuild_trigger" "on_event" {
  for_each = local.on_events

  project         = var.project
  location        = var.region
  name            = "${var.name}-${each.key}"
  description     = each.value.description
  filename        = each.value.file
  service_account = "projects/${var.project}/serviceAccounts/${each.key == "plan" ? var.plan_account : var.build_account}"
  substitutions   = merge(local.at, each.value.substitutions)

  repository_event_config {
    repository = var.repository

    dynamic "push" {
      for_each = each.key == "build" ? [1] : []
      content {
        branch = "^${var.branch}$"
      }
    }

    dynamic "pull_request" {
      for_each = each.key == "plan" ? [1] : []
      content {
        branch = "^${var.branch}$"
        # What a stranger proposes runs with this account's roles once somebody of the repository says so.
        comment_control = "COMMENTS_ENABLED_FOR_EXTERNAL_CONTRIBUTORS_ONLY"
      }
    }
  }
}

resource "google_cloudbuild_trigger" "deploy" {
  project         = var.project
  location        = var.region
  name            = "${var.name}-deploy"
  description     = "Applies a plan that a build of ${var.branch} made, once a person approves"
  service_account = "projects/${var.project}/serviceAccounts/${var.deploy_account}"
  substitutions   = local.at

  source_to_build {
    repository = var.repository
    ref        = "refs/heads/${var.branch}"
    repo_type  = "GITHUB"
  }

  git_file_source {
    repository = var.repository
    revision   = "refs/heads/${var.branch}"
    repo_type  = "GITHUB"
    path       = "cloudbuild.deploy.yaml"
  }

  approval_config {
    approval_required = true
  }
}
