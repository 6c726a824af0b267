resource "aws_dynamodb_table" "orders" {
  name             = local.name
  hash_key         = "pk"
  stream_enabled   = true
  stream_view_type = "NEW_AND_OLD_IMAGES"

  attribute {
    name = "pk"
    type = "S"
  }
}

resource "aws_sqs_queue" "jobs" {
  name = "jobs"
}

resource "aws_lambda_function" "projector" {
  function_name = "${local.name}-projector"
  role          = aws_iam_role.projector.arn
  filename      = "${path.module}/projector.zip"
  handler       = "app.handler"
  runtime       = "python3.12"
  timeout       = 90

  environment {
    variables = {
      TABLE = aws_dynamodb_table.orders.name
      STAGE = var.stage
    }
  }
}

resource "aws_lambda_alias" "live" {
  name             = "live"
  function_name    = aws_lambda_function.projector.function_name
  function_version = aws_lambda_function.projector.version
}
