"""W3C trace context, and spans of requests sent to a collector of OpenTelemetry."""
