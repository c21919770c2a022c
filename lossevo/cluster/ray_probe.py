"""A script, run in a process of its own: can this machine work with the Ray cluster at ``argv[1]``?

Prints one JSON object. ``ray.init`` with a bad address hangs for minutes inside C++, deaf to Ctrl-C, and may abort the
process; a child process can be waited for with a time limit, and may die. It imports nothing of lossevo, so that it
runs by its path.
"""

from __future__ import annotations

import json
import logging
import sys


def probe(address: str) -> dict[str, str]:
    """``{"problem": …, "message": …}``; a problem is ``authentication``, ``version``, ``node`` or ``connection``."""
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        text = f"{error}\n{error.__cause__ or ''}"
        if "AuthenticationError" in text or type(error).__name__ == "AuthenticationError":
            return {"problem": "authentication", "message": text}
        if "Version mismatch" in text:
            return {"problem": "version", "message": text}
        if "node to connect to" in text:
            return {"problem": "node", "message": text}
        return {"problem": "connection", "message": text}
    return {"problem": "", "message": ""}


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])), flush=True)
