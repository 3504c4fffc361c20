# What pint looks for in prometheus/rules/, without asking a Prometheus: make check.
parser {
  include = ["prometheus/rules/.*"]
}

rule {
  match {
    kind = "alerting"
  }
  annotation "summary" {
    severity = "bug"
    required = true
  }
  annotation "description" {
    severity = "bug"
    required = true
  }
  annotation "runbook_url" {
    severity = "bug"
    required = true
  }
  annotation "dashboard_url" {
    severity = "bug"
    required = true
  }
  label "severity" {
    severity = "bug"
    value    = "critical|high|medium|low|none"
    required = true
  }
  label "team" {
    severity = "bug"
    required = true
  }
}

# Long windows are read less often than the series they are made of, so they stand in a group of their own.
checks {
  disabled = ["rule/dependency"]
}

# Always firing is what it is for.
rule {
  match {
    name = "Watchdog"
  }
  disable = ["alerts/comparison"]
}
