"""L0: what is written in Kubernetes and on the wire, and the names and units it is written in."""
