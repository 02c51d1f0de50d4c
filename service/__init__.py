"""The scoring service, and the three modules it lends to training and export.

`service.features`, `service.bundle` and `service.scorer` know no web framework: training and export use the
very same code that serves, which is what rules out training-serving skew.
"""

import os
from typing import Final

__all__ = ["VERSION"]

# ONNX Runtime reports use to its maker unless told otherwise before its first import. A scoring service calls nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
VERSION: Final = "0.1.0"
