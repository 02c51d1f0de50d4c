"""A second version on trial: a share of the traffic scored by it (canary), or all of it beside the answers (shadow)."""
