"""charrnn: train, export, look into and serve character-level recurrent networks.

Importing it costs milliseconds and never imports torch: training lives in ``charrnn.training``,
export in ``charrnn.export``.
"""

import os

# ONNX Runtime's wheels send telemetry unless this stands before the library is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
