"""How much of a model's dense layers can go before its ranking suffers."""
