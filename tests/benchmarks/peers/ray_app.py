"""Ray Serve: one deployment, `num_replicas` of it, each with its share of the cores.

https://docs.ray.io/en/latest/serve/advanced-guides/performance.html: cores reserved by `ray_actor_options`,
`OMP_NUM_THREADS`, and `RAY_SERVE_THROUGHPUT_OPTIMIZED`, which the program that starts this file sets.
"""

from __future__ import annotations

import os
import signal

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from detection.errors import ImageError

CORES = len(os.sched_getaffinity(0))
REPLICAS = int(os.environ["BENCH_WORKERS"])
THREADS = {name: os.environ[name] for name in ("BENCH_THREADS", "OMP_NUM_THREADS") if name in os.environ}


@serve.deployment(
    num_replicas=REPLICAS,
    ray_actor_options={"num_cpus": CORES / REPLICAS, "runtime_env": {"env_vars": THREADS}},
)
class Detect:
    """Bytes of a picture in, JSON out."""

    def __init__(self) -> None:
        from tests.benchmarks.peers.detector import load_detector  # only here: no other process needs torch

        self.detector = load_detector()

    async def __call__(self, request: Request) -> Response:
        picture = await request.body()
        try:
            return Response(self.detector.look(picture), media_type="application/json")
        except ImageError as error:
            return Response(str(error), status_code=422)


if __name__ == "__main__":
    ray.init(
        address="local",
        num_cpus=CORES,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=True,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    serve.run(Detect.bind(), route_prefix="/detect")
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
