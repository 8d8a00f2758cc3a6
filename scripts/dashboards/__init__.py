"""Writes the Grafana dashboards in `deploy/grafana/dashboards` from what is said of them here."""
