"""The Dockerfile as far as it can be judged without a Docker engine; the health check for real."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.deploy.reading import DEPLOY, REPOSITORY

DOCKERFILE = DEPLOY / "containers" / "Dockerfile"
HEALTHY = DEPLOY / "containers" / "healthy.py"
TARGETS = ("listener", "worker", "trainer")


def stages() -> dict[str, list[str]]:
    """Instructions of each stage, with those of the stages that it is made from."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        if line.startswith("#"):
            continue
        if begun := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            stage = found[begun[2]] = list(found.get(begun[1], ()))
        elif found:
            stage.append(line)
    return found


def test_the_linter_finds_nothing() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter, "hadolint is not installed: `make install` installs it"
    done = subprocess.run([linter, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("target", TARGETS)
def test_a_program_runs_as_nobody_special_and_says_how_it_is(target: str) -> None:
    instructions = stages()[target]
    last = {line.split()[0]: line.partition(" ")[2] for line in instructions}

    assert last["USER"] == "10001:10001"
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert last["ENTRYPOINT"] == f'["python", "-m", "{target}"]'
    assert ("healthy.py" in last["HEALTHCHECK"]) == (target != "trainer")
    assert any("org.opencontainers.image" in line for line in instructions)
    assert not any(re.search(r"apt-get|gcc|curl|ADD ", line) for line in instructions)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_installed_is_what_was_tested(target: str) -> None:
    commands = " && ".join(stages()[f"{target}-environment"]).split(" && ")
    installs = [command for command in commands if "pip install" in command]
    assert installs
    for command in installs:
        is_torch_alone = "--no-deps" in command and command.strip().endswith('"${torch}"')
        assert "--constraint constraints.txt" in command or is_torch_alone, command


def test_what_is_copied_is_there_and_is_sent_to_the_builder() -> None:
    lets_in = [
        line[1:]
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = [
        source
        for line in {line for of_stage in stages().values() for line in of_stage}
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert copied
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in lets_in), source


class Answer(BaseHTTPRequestHandler):
    """Says how it is, to whom asks by the right name."""

    status = 200

    def do_GET(self) -> None:
        is_asked = self.path in ("/healthz", "/metrics")
        self.send_response(self.status if is_asked else 404)
        self.end_headers()
        self.wfile.write(f"asked by {self.headers['Host']}".encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    Answer.status = 200


def ask(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(HEALTHY), program],
        capture_output=True, text=True, check=False, env=variables, timeout=30,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("program", "port"),
    [("listener", "MONRO_CONSOLE_PORT"), ("worker", "MONRO_WORKER_METRICS_PORT")],
)
def test_who_lives_is_healthy_and_who_is_ill_or_gone_is_not(
    answering: int, program: str, port: str
) -> None:
    assert ask(program, **{port: str(answering)}).returncode == 0
    Answer.status = 503
    ill = ask(program, **{port: str(answering)}, MONRO_CONSOLE_HOSTS='["monro.hospital"]')
    assert ill.returncode == 1
    assert "answers 503: asked by monro.hospital" in ill.stdout
    assert ask(program, **{port: "1"}).returncode == 1
    assert f"{port} is not set" in ask(program).stdout
