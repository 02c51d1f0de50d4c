"""Models: what every model sees (`base`), REACTION itself (`reaction`)."""
