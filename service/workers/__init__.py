"""The processes that serve, and their parent: what the machine gives, who starts whom, what they tell each other."""
