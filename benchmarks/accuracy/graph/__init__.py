"""Baselines as ONNX graphs, through the same passes as our own model.

One stacked look-up a side with offset ids, multi-valued fields pooled; batch norm, gates that depend on no row and what
else is constant folded into the linear layers beside them; dropout gone; the first layer split into what a request's
candidates share and what they do not; then `model_export.passes`, ONNX Runtime's offline optimisation among them.
"""
