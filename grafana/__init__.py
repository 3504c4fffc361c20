"""The dashboards as code. boards/ says what each shows, build.py makes dashboards/*.gen.json and docs/dashboards.md."""

import warnings

# The SDK would rather have the form that Grafana 12 does not read from a file.
warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
