variable "application" {
  description = "Names this consumer: the name space of its lease rows, and the prefix of everything the module makes."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9][a-zA-Z0-9_-]{0,49}$", var.application))
    error_message = "application must be 1 to 50 of a-z A-Z 0-9 _ -, and begin with a letter or digit."
  }
}

variable "source_table" {
  description = "Name of the table with the stream, in the provider's region and account."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9_.-]{3,255}$", var.source_table))
    error_message = "source_table must be a table name: 3 to 255 of a-z A-Z 0-9 _ . -, and no ARN."
  }
}

variable "lease_table_name" {
  description = "An existing lease table to share with other applications. null: the module makes one."
  type        = string
  default     = null

  validation {
    condition     = var.lease_table_name == null || can(regex("^[a-zA-Z0-9_.-]{3,255}$", var.lease_table_name))
    error_message = "lease_table_name must be a table name: 3 to 255 of a-z A-Z 0-9 _ . -, and no ARN."
  }
}

variable "trusted_by" {
  description = "Who runs the daemon and takes its role: ecs, eks (Pod Identity) or ec2."
  type        = string
  default     = "ecs"

  validation {
    condition     = contains(["ecs", "eks", "ec2"], var.trusted_by)
    error_message = "trusted_by must be ecs, eks or ec2."
  }
}

variable "alarm_topic_arns" {
  description = "SNS topics that the alarms go to. Without one they only show in CloudWatch."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.alarm_topic_arns : can(regex("^arn:[^:]+:sns:", arn))])
    error_message = "alarm_topic_arns must be ARNs of SNS topics."
  }
}

variable "large_letters_expire_after_days" {
  description = "Days that payloads are kept which no SQS message holds. A letter in the queue refers to its payload for 14 days."
  type        = number
  default     = 30

  validation {
    condition     = var.large_letters_expire_after_days >= 14
    error_message = "large_letters_expire_after_days must be 14 or more: letters in the queue refer to the payloads."
  }
}

variable "ecs" {
  description = "A service on Fargate. null: none is made, and the daemon runs elsewhere. desired_count is the fewest workers, max_count the most: more than the stream has open shards are idle."
  type = object({
    cluster_name       = string
    image              = string
    subnet_ids         = list(string)
    security_group_ids = list(string)
    assign_public_ip   = optional(bool, false)
    cpu_architecture   = optional(string, "X86_64")
    cpu                = optional(number, 512)
    memory             = optional(number, 1024)
    desired_count      = optional(number, 2)
    max_count          = optional(number, 4)
    lag_alarm_seconds  = optional(number, 300)
    log_retention_days = optional(number, 30)
  })
  default = null

  validation {
    condition     = var.ecs == null || contains(["X86_64", "ARM64"], try(var.ecs.cpu_architecture, "X86_64"))
    error_message = "ecs.cpu_architecture must be X86_64 or ARM64: what the image was built for."
  }

  validation {
    condition     = var.ecs == null || try(var.ecs.desired_count >= 1 && var.ecs.max_count >= var.ecs.desired_count, false)
    error_message = "ecs.desired_count must be 1 or more, and ecs.max_count not below it."
  }

  validation {
    condition     = var.ecs == null || !try(endswith(var.ecs.image, ":latest"), false)
    error_message = "ecs.image must name a version or a digest: latest is another image with every start."
  }
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
