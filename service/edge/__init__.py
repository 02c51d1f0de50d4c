"""Between a socket and a request: the protocol, its limits and deadlines, the lane for scoring, who may ask."""
