"""Delivery feedback: what became of the candidates that were scored, as live log loss, AUC and calibration.

An answer that is drawn carries a signed token for each candidate. Whoever learns that a candidate was clicked sends its
token to `POST /feedback`, of any worker of any replica: what there is to know stands in the token, and everything that
is counted adds up. Nothing is kept for a token but eight bytes for as long as it may come back.
"""
