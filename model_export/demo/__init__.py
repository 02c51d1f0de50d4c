"""The demonstration: `python -m model_export.demo` goes the whole way on generated data whose truth is known."""
