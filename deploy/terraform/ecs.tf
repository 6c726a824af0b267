# The service on Fargate, when var.ecs says so: as deploy/ecs/service.yaml.

locals {
  ecs_count = var.ecs == null ? 0 : 1
}

resource "aws_cloudwatch_log_group" "ecs" {
  count = local.ecs_count

  name              = "/ecs/${var.application}"
  retention_in_days = var.ecs.log_retention_days
  tags              = var.tags
}

data "aws_iam_policy_document" "execution_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "execution" {
  count = local.ecs_count

  name_prefix        = substr("${var.application}-exec-", 0, 38)
  assume_role_policy = data.aws_iam_policy_document.execution_trust.json
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "execution" {
  count = local.ecs_count

  role       = aws_iam_role.execution[0].name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

resource "aws_ecs_task_definition" "this" {
  count = local.ecs_count

  family                   = var.application
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.ecs.cpu
  memory                   = var.ecs.memory
  task_role_arn            = aws_iam_role.daemon.arn
  execution_role_arn       = aws_iam_role.execution[0].arn
  tags                     = var.tags

  runtime_platform {
    cpu_architecture        = var.ecs.cpu_architecture
    operating_system_family = "LINUX"
  }

  volume {
    name = "tmp"
  }

  container_definitions = jsonencode([
    {
      name                   = "stream-consumer"
      image                  = var.ecs.image
      essential              = true
      user                   = "10001:10001"
      readonlyRootFilesystem = true
      stopTimeout            = 40 # longer than shutdown.grace
      environment = [
        { name = "AWS_REGION", value = local.region },
        { name = "APPLICATION", value = var.application },
        { name = "SOURCE_TABLE", value = var.source_table },
        { name = "LEASE_TABLE", value = local.lease_table_name },
        { name = "DLQ_ARN", value = aws_sqs_queue.dead_letters.arn },
        { name = "OVERFLOW", value = "s3://${aws_s3_bucket.large_letters.bucket}/${var.application}" },
      ]
      portMappings = [{ containerPort = 9464, protocol = "tcp" }]
      healthCheck = {
        command     = ["CMD", "stream-consumer", "health", "--config", "/etc/stream-consumer/config.yaml"]
        interval    = 10
        timeout     = 5
        retries     = 3
        startPeriod = 60
      }
      linuxParameters = { initProcessEnabled = false, capabilities = { drop = ["ALL"] } }
      mountPoints     = [{ sourceVolume = "tmp", containerPath = "/tmp" }]
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = aws_cloudwatch_log_group.ecs[0].name
          awslogs-region        = local.region
          awslogs-stream-prefix = "stream-consumer"
          mode                  = "non-blocking"
          max-buffer-size       = "4m"
        }
      }
    },
  ])
}

resource "aws_ecs_service" "this" {
  count = local.ecs_count

  name                               = var.application
  cluster                            = var.ecs.cluster_name
  launch_type                        = "FARGATE"
  task_definition                    = aws_ecs_task_definition.this[0].arn
  desired_count                      = var.ecs.desired_count
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  propagate_tags                     = "SERVICE"
  tags                               = var.tags

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.ecs.subnet_ids
    security_groups  = var.ecs.security_group_ids
    assign_public_ip = var.ecs.assign_public_ip
  }

  # The autoscaling changes it.
  lifecycle {
    ignore_changes = [desired_count]
  }
}

resource "aws_appautoscaling_target" "workers" {
  count = local.ecs_count

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${var.ecs.cluster_name}/${aws_ecs_service.this[0].name}"
  min_capacity       = var.ecs.desired_count
  max_capacity       = var.ecs.max_count
}

# The metrics of StreamConsumer come out of the daemon's log: logging.emf.
# By the iterator age, how far reading is behind: a key that fails makes lag, and more workers do not make it succeed.
resource "aws_appautoscaling_policy" "out" {
  count = local.ecs_count

  name               = "${var.application}-out"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.workers[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.workers[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.workers[0].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    cooldown                = 180
    metric_aggregation_type = "Maximum"

    step_adjustment {
      metric_interval_lower_bound = 0
      scaling_adjustment          = 2
    }
  }
}

# One at a time and rarely: whoever leaves hands shards over, and a fleet that flaps is busy with that.
resource "aws_appautoscaling_policy" "in" {
  count = local.ecs_count

  name               = "${var.application}-in"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.workers[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.workers[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.workers[0].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    cooldown                = 900
    metric_aggregation_type = "Maximum"

    step_adjustment {
      metric_interval_upper_bound = 0
      scaling_adjustment          = -1
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "behind" {
  count = local.ecs_count

  alarm_name          = "${var.application}-behind"
  alarm_description   = "Reading is behind, so workers are added. This is no page."
  namespace           = "StreamConsumer"
  metric_name         = "stream_consumer_iterator_age_seconds"
  dimensions          = { Application = var.application, Table = var.source_table }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  threshold           = 60
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_appautoscaling_policy.out[0].arn]
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "caught_up" {
  count = local.ecs_count

  alarm_name          = "${var.application}-caught-up"
  alarm_description   = "Reading is at the tip for a quarter of an hour, so a worker is taken away. This is no page."
  namespace           = "StreamConsumer"
  metric_name         = "stream_consumer_iterator_age_seconds"
  dimensions          = { Application = var.application, Table = var.source_table }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 15
  threshold           = 10
  comparison_operator = "LessThanThreshold"
  treat_missing_data  = "notBreaching" # nothing is known, and that is no reason to have fewer
  alarm_actions       = [aws_appautoscaling_policy.in[0].arn]
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "lag" {
  count = local.ecs_count

  alarm_name          = "${var.application}-lag"
  alarm_description   = "Records wait for too long, or no worker says how long they wait. docs/incident.md says what to do."
  namespace           = "StreamConsumer"
  metric_name         = "stream_consumer_lag_seconds"
  dimensions          = { Application = var.application, Table = var.source_table }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 10
  threshold           = var.ecs.lag_alarm_seconds
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "breaching" # a fleet that is dead reports no lag
  alarm_actions       = var.alarm_topic_arns
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "stuck_key" {
  count = local.ecs_count

  alarm_name          = "${var.application}-stuck-key"
  alarm_description   = "A key has failed for more than 45 seconds and its records wait, or most of a shard does. The status page and docs/runbooks/StreamConsumerStuckKey.md say more."
  namespace           = "StreamConsumer"
  metric_name         = "stream_consumer_failing_seconds"
  dimensions          = { Application = var.application, Table = var.source_table }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  threshold           = 45
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching" # the lag alarm is the one that rings for silence
  alarm_actions       = var.alarm_topic_arns
  tags                = var.tags
}
