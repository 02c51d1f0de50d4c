"""The scoring service, and the three modules it lends to training and export.

`service.features`, `service.bundle` and `service.scorer` know no web framework: training and export use the
very same code that serves, which is what rules out training-serving skew.
"""
