# terraform init && terraform apply -var image=... -var cluster=... -var 'subnets=[...]' -var 'security_groups=[...]'

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40, < 7.0"
    }
  }
}

variable "image" {
  description = "Your image: FROM this project's, with your handlers in /app and deploy/ecs/config.yaml in /etc/stream-consumer."
  type        = string
}

variable "cluster" {
  description = "Name of the ECS cluster."
  type        = string
}

variable "subnets" {
  description = "Ids of subnets that reach AWS, over a NAT gateway or endpoints."
  type        = list(string)
}

variable "security_groups" {
  description = "Ids of security groups: out to 443; in to 9464 from who reads the status page."
  type        = list(string)
}

module "orders_projector" {
  source = "../.."

  application  = "orders-projector"
  source_table = "orders"

  ecs = {
    cluster_name       = var.cluster
    image              = var.image
    subnet_ids         = var.subnets
    security_group_ids = var.security_groups
    cpu_architecture   = "ARM64"
    max_count          = 6
  }
}

output "dead_letters_url" {
  description = "Where records go that were given up."
  value       = module.orders_projector.dead_letters_url
}
