"""Damaged bundles and mangled requests: each is refused or answered sanely, and the service never ends by it."""
