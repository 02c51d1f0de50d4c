"""REACTION's defaults on tables of every kind, beside one-hot logistic regression and the best possible model."""
