variable "stage" {
  type    = string
  default = "dev"
}

variable "batch_size" {
  type    = number
  default = 200
}

variable "dead_letters_arn" {
  type = string
}

locals {
  name = "orders-${var.stage}"
}
