"""Pictures of the dashboards for review and docs. They look like Grafana's, but Grafana did not draw them."""
