# What an application of dynamodb-stream-consumer needs in AWS: the lease table, the queue and the bucket of its dead
# letters, and the role of its daemon. ecs.tf has the service on Fargate, which is optional.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  region           = data.aws_region.current.name
  account          = data.aws_caller_identity.current.account_id
  tables           = "arn:${data.aws_partition.current.partition}:dynamodb:${local.region}:${local.account}:table"
  makes_leases     = var.lease_table_name == null
  lease_table_name = local.makes_leases ? aws_dynamodb_table.leases[0].name : var.lease_table_name
  lease_table_arn  = "${local.tables}/${local.lease_table_name}"

  trusted_service = {
    ecs = "ecs-tasks.amazonaws.com"
    eks = "pods.eks.amazonaws.com"
    ec2 = "ec2.amazonaws.com"
  }[var.trusted_by]
}

# Without its leases an application starts again from source.starting_position.
resource "aws_dynamodb_table" "leases" {
  count = local.makes_leases ? 1 : 0

  name                        = "${var.application}-leases"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  deletion_protection_enabled = true
  tags                        = var.tags

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }
}

resource "aws_sqs_queue" "dead_letters" {
  name                      = "${var.application}-dead-letters"
  message_retention_seconds = 1209600 # 14 days, the most
  sqs_managed_sse_enabled   = true
  tags                      = var.tags
}

# What no SQS message holds: on_failure.overflow.
resource "aws_s3_bucket" "large_letters" {
  bucket_prefix = "stream-consumer-letters-"
  tags          = merge(var.tags, { application = var.application })
}

resource "aws_s3_bucket_public_access_block" "large_letters" {
  bucket                  = aws_s3_bucket.large_letters.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "large_letters" {
  bucket = aws_s3_bucket.large_letters.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "large_letters" {
  bucket = aws_s3_bucket.large_letters.id

  rule {
    id     = "expire"
    status = "Enabled"

    filter {}

    expiration {
      days = var.large_letters_expire_after_days
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  alarm_name          = "${var.application}-dead-letters"
  alarm_description   = "Records left the stream without being handled. docs/dead-letters.md says how to look at them and redrive."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead_letters.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  tags                = var.tags
}

# The role of the daemon: deploy/iam/policy.json with this application's resources.

data "aws_iam_policy_document" "trust" {
  statement {
    actions = var.trusted_by == "eks" ? ["sts:AssumeRole", "sts:TagSession"] : ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = [local.trusted_service]
    }
  }
}

data "aws_iam_policy_document" "consume" {
  statement {
    sid       = "ReadTheStream"
    actions   = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
    resources = ["${local.tables}/${var.source_table}/stream/*"]
  }

  statement {
    sid       = "FindTheStream"
    actions   = ["dynamodb:DescribeTable"]
    resources = ["${local.tables}/${var.source_table}"]
  }

  statement {
    sid       = "CheckTheLeaseTable"
    actions   = ["dynamodb:DescribeTable"]
    resources = [local.lease_table_arn]
  }

  statement {
    sid = "OwnLeaseRowsOnly"
    actions = [
      "dynamodb:ConditionCheckItem",
      "dynamodb:DeleteItem",
      "dynamodb:GetItem",
      "dynamodb:PutItem",
      "dynamodb:Query",
      "dynamodb:UpdateItem",
    ]
    resources = [local.lease_table_arn]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = [var.application, "${var.application}#*"]
    }

    # Without this a request that names no key at all would satisfy ForAllValues.
    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  statement {
    sid       = "SendDeadLetters"
    actions   = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }

  statement {
    sid       = "WriteToTheBucket"
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.large_letters.arn}/${var.application}/*"]
  }

  statement {
    sid       = "FindTheBucket"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.large_letters.arn]
  }
}

resource "aws_iam_role" "daemon" {
  name_prefix        = substr("${var.application}-", 0, 38)
  assume_role_policy = data.aws_iam_policy_document.trust.json
  tags               = var.tags
}

resource "aws_iam_role_policy" "consume" {
  name   = "consume"
  role   = aws_iam_role.daemon.id
  policy = data.aws_iam_policy_document.consume.json
}
