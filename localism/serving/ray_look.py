"""Waits until a Ray cluster is as large as asked: python -m localism.serving.ray_look NODES GPUS

In a process of its own, since joining a cluster is for the life of a process. Prints a JSON line
whenever the cluster changes, and ends with 0 once NODES machines with GPUS each are in it.
"""

import json
import sys
import time
from typing import Any

LOOK_SECONDS = 0.5


def main(arguments: list[str]) -> None:
    """Look until enough have come; whoever started this ends it when that takes too long."""
    import ray

    wanted, gpus = map(int, arguments)
    ray.init(log_to_driver=False, logging_level="ERROR")
    before: list[dict[str, Any]] = []
    while True:
        nodes = [
            {"address": node["NodeManagerAddress"], "gpus": node["Resources"].get("GPU", 0)}
            for node in ray.nodes()
            if node["Alive"]
        ]
        if nodes != before:
            print(json.dumps(nodes), flush=True)
            before = nodes
        if sum(node["gpus"] >= gpus for node in nodes) >= wanted:
            ray.shutdown()
            return
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
