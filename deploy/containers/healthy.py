"""Whether the program of this container lives, as it says itself; exit status 1 where it does not.

    python healthy.py listener    asks /healthz of the console
    python healthy.py worker      asks for its figures

On loopback, so that no certificate has to name it: which one is shown there is not looked at.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE_SECONDS = 8

PORTS = {"listener": ("MONRO_CONSOLE_PORT", "/healthz"),
         "worker": ("MONRO_WORKER_METRICS_PORT", "/metrics")}  # fmt: skip


def main(program: str) -> int:
    """Ask, and say what is wrong in one line."""
    setting, path = PORTS[program]
    port = os.environ.get(setting)
    if not port:
        return _complain(f"{setting} is not set, so there is nothing to ask: set it")
    speaks_tls = program == "listener" and _is_set("MONRO_TLS")
    url = f"{'https' if speaks_tls else 'http'}://127.0.0.1:{port}{path}"
    try:
        request = urllib.request.Request(url, headers=_host())
        context = ssl._create_unverified_context() if speaks_tls else None
        urllib.request.urlopen(request, timeout=PATIENCE_SECONDS, context=context).close()
    except urllib.error.HTTPError as error:
        return _complain(f"{url} answers {error.code}: {error.read(500).decode(errors='replace')}")
    except OSError as error:
        return _complain(f"{url} does not answer: {error}")
    return 0


def _is_set(name: str) -> bool:
    folder = Path(os.environ.get("MONRO_SECRETS", ""))
    return name in os.environ or (folder / name.lower()).exists()


def _host() -> dict[str, str]:
    """By the name that the console is called by, where it answers to no other."""
    named = os.environ.get("MONRO_CONSOLE_HOSTS", "")
    first = named.strip("[] ").split(",")[0].strip(' "')
    return {"Host": first} if first else {}


def _complain(text: str) -> int:
    print(text)  # noqa: T201 - Docker and Kubernetes keep what is printed
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
