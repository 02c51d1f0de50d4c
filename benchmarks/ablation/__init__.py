"""Ablation of REACTION's parts, and controls at equal total steps: `python -m benchmarks.ablation`."""
