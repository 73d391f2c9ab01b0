output "id" {
  description = "The topic, once its publishers may publish."
  value       = local.id

  depends_on = [google_pubsub_topic_iam_member.publisher]
}

output "name" {
  description = "The topic's name."
  value       = google_pubsub_topic.this.name
}
