"""A model as OpenVINO reads it: graph (XML), weights (BIN) and record (JSON), together in one zip.

OpenVINO is an extra. Its runtime converts ONNX itself; the separate converter, which reports its use to its
maker, is never called.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from detection.inference.backends.openvino_runtime import OpenVinoBackend, import_openvino
from detection.model_files import RECORD_FILE, encode_record
from detection.model_record import ModelRecord

GRAPH_FILE, NUMBERS_FILE = "model.xml", "model.bin"


def write_openvino(graph: bytes, record: ModelRecord, path: Path) -> None:
    """Convert an exported ONNX graph and write the zip.

    Raises:
        MissingPackageError: OpenVINO is not installed here.
        OSError: the file cannot be written.
    """
    openvino = import_openvino()
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(graph)
        network = openvino.Core().read_model(str(folder / "model.onnx"))
        openvino.save_model(network, str(folder / GRAPH_FILE), compress_to_fp16=False)
        (folder / RECORD_FILE).write_bytes(encode_record(record))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (GRAPH_FILE, NUMBERS_FILE, RECORD_FILE):
                archive.write(folder / file, file)


def open_openvino(path: Path, *, threads: int = 1) -> OpenVinoBackend:
    """Return the graph of a zip that `write_openvino` wrote, ready to run.

    Raises:
        MissingPackageError: OpenVINO is not installed here.
    """
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        archive.extractall(folder, (GRAPH_FILE, NUMBERS_FILE))
        return OpenVinoBackend(Path(folder) / GRAPH_FILE, threads=threads)
