"""What is watched over: so far, the alerts that the rest of the platform raises."""

from strongroom.monitoring.alerts import Alert, list_alerts

__all__ = ["Alert", "list_alerts"]
