"""Known truth against real Prometheus servers: days that were made up, and a workload that counts for itself."""
