"""The HTTP edge: the shared listener, the public API of InfluxDB 1.x, the meta API and the node-to-node API."""
