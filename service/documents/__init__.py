"""What the service says of itself: OpenAPI, the schema of a request of this bundle, examples, the page."""
