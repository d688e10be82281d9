"""The only place that speaks to an API server: client, reflector, lease, worker queue, events, health."""
