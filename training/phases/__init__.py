"""One phase of training: batches, tables, optimisers, early stopping, checkpoints."""
