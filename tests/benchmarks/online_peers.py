"""Other ways to serve the same ONNX model over HTTP, each as little code as its documentation shows. No tests here.

Run as `python online_peers.py fastapi|litserve <model.onnx> <port>`, fastapi also with a number of threads.
A request holds all features: `{"numeric": [...], "categorical": [...]}`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import InferenceSession, SessionOptions


def _load(path: str, threads: int = 0) -> InferenceSession:
    """The model; 0 threads = ONNX Runtime's default, as many as the machine has processors."""
    options = SessionOptions()
    options.intra_op_num_threads = threads
    return InferenceSession(Path(path).read_bytes(), options, providers=["CPUExecutionProvider"])


def _predict(session: InferenceSession, numeric: list[float | None], categorical: list[str]) -> float:
    inputs = {"numeric": np.array([numeric], dtype=np.float32), "categorical": np.array([categorical], dtype=object)}
    return float(session.run(["probabilities"], inputs)[0][0, 1])


def fastapi(path: str, port: int, threads: int = 0) -> None:
    """FastAPI with the model in the process: no look-up, no contract, no log, no metrics."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Row(BaseModel):
        numeric: list[float | None]
        categorical: list[str]

    app, session = FastAPI(), _load(path, threads)

    @app.post("/predict")
    async def predict(row: Row) -> dict[str, float]:
        return {"score": _predict(session, row.numeric, row.categorical)}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def litserve(path: str, port: int) -> None:
    """LitServe as its documentation shows it: the model in an inference worker."""
    from litserve import LitServer

    LitServer(_api(path), accelerator="cpu").run(
        host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False, access_log=False
    )


def _api(path: str) -> Any:
    return OnnxAPI(path)


if "litserve" in sys.argv or __name__ == "__mp_main__":
    from litserve import LitAPI

    class OnnxAPI(LitAPI):
        """The model of one worker."""

        def __init__(self, path: str):
            super().__init__()
            self.path = path

        def setup(self, device: str) -> None:
            self.session = _load(self.path)

        def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
            return request

        def predict(self, row: dict[str, Any]) -> float:
            return _predict(self.session, row["numeric"], row["categorical"])

        def encode_response(self, output: float) -> dict[str, float]:
            return {"score": output}


if __name__ == "__main__":
    {"fastapi": fastapi, "litserve": litserve}[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
