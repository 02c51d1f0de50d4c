"""What is counted, in cells that processes share, and how it is shown to Prometheus."""
