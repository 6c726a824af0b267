resource "aws_lambda_event_source_mapping" "orders" {
  event_source_arn                   = aws_dynamodb_table.orders.stream_arn
  function_name                      = aws_lambda_alias.live.arn
  starting_position                  = "TRIM_HORIZON"
  batch_size                         = var.batch_size
  maximum_batching_window_in_seconds = 2
  maximum_retry_attempts             = 6
  maximum_record_age_in_seconds      = 3600
  bisect_batch_on_function_error     = true
  parallelization_factor             = 3
  function_response_types            = ["ReportBatchItemFailures"]

  filter_criteria {
    filter {
      pattern = jsonencode({
        eventName = ["INSERT", "MODIFY"]
        dynamodb = {
          NewImage = { total = { N = [{ exists = true }] } }
        }
      })
    }
    filter {
      pattern = <<-EOT
        {"eventName": ["REMOVE"], "dynamodb": {"OldImage": {"stage": {"S": ["${var.stage}"]}}}}
      EOT
    }
  }

  destination_config {
    on_failure {
      destination_arn = var.dead_letters_arn
    }
  }
}

resource "aws_lambda_event_source_mapping" "jobs" {
  event_source_arn = aws_sqs_queue.jobs.arn
  function_name    = aws_lambda_function.projector.arn
}
