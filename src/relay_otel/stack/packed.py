"""What of a checkout is packed into the wheel. setup.py runs this file, so it imports nothing."""

PATTERNS = (
    "compose.yaml",
    "contract/*.yaml",
    "collector/config.yaml",
    "collector/push.yaml",
    "collector/traces.yaml",
    "collector/secure.yaml",
    "collector/secure.browser.yaml",
    "prometheus/*.yml",
    "prometheus/flags",
    "prometheus/targets/*.yml",
    "alertmanager/alertmanager.yml",
    "alertmanager/flags",
    "alertmanager/log_url",
    "alertmanager/secrets/README.md",
    "alertmanager/templates/*.tmpl",
    "grafana/dashboards/*.gen.json",
    "grafana/provisioning/*/*.yml",
    "runbooks/*.md",
    "deploy/compose/log_url",
    "deploy/compose/no_probe.yml",
    "deploy/compose/tempo.yaml",
    "deploy/compose/targets/*.yml",
)
"""Each finds at least one file. What is generated for a user anyway (collector/*.gen.yaml, rules) is not among them."""
