"""The Open Inference Protocol V2 over HTTP, as clients of KServe and Triton speak it."""
