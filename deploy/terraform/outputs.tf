output "lease_table_name" {
  description = "leases.table of the configuration."
  value       = local.lease_table_name
}

output "dead_letters_arn" {
  description = "on_failure.destination of the configuration."
  value       = aws_sqs_queue.dead_letters.arn
}

output "dead_letters_url" {
  description = "URL of the queue, for other tools."
  value       = aws_sqs_queue.dead_letters.url
}

output "overflow" {
  description = "on_failure.overflow of the configuration."
  value       = "s3://${aws_s3_bucket.large_letters.bucket}/${var.application}"
}

output "role_arn" {
  description = "The role of the daemon."
  value       = aws_iam_role.daemon.arn
}

output "service_name" {
  description = "The service on ECS, or null."
  value       = one(aws_ecs_service.this[*].name)
}
