"""The same model behind LitServe, as its documentation has it, to be compared with `ramstrans serve`.

    python -m benchmarks.litserve_peer RUN PORT

Images come as base64 in JSON: LitServe reads no raw bodies. Needs `pip install litserve`.
"""

import base64
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ramstrans.inference.writers import to_json

litserve: Any = import_module("litserve") if find_spec("litserve") else None


class Api(litserve.LitAPI if litserve else object):
    """A predictor in LitServe's own process, which decodes and predicts a batch at a time."""

    def setup(self, device: str) -> None:
        """Load the model."""
        from ramstrans.inference.predictor import Predictor

        self.predictor = Predictor.load(Path(sys.argv[1]), device)

    def decode_request(self, request: dict[str, str]) -> bytes:
        """The bytes of a file."""
        return base64.b64decode(request["image"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """A list stays a list."""
        return inputs

    def predict(self, batch: list[bytes]) -> list[dict[str, Any]]:
        """Decode in threads, and predict."""
        return [to_json(prediction) for prediction in self.predictor(batch)]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A list stays a list."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """As `ramstrans serve` has it."""
        return {"predictions": [output]}


if __name__ == "__main__":
    api = Api(max_batch_size=32, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False, log_level="warning")
