"""Models by hub name, from a server on this machine that answers as the hub does: download, cache, and each way to fail."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clozeline import bundle

COMMIT = "1f" * 20  # a commit's name is 40 hexadecimal digits

# the hub's address is read when huggingface-hub is imported, so each client is a process of its own
CLIENT = """
import json, sys
import clozeline as cl
found = {}
for name in sys.argv[1:]:
    try:
        model = cl.load(name)
        found[name] = {"sum": float(sum(p.detach().double().abs().sum() for p in model.network.parameters()))}
    except cl.InputError as error:
        found[name] = {"error": str(error)}
print(json.dumps(found))
"""


class Hub(http.server.ThreadingHTTPServer):
    """Serves folders under their names, each at one commit; notes what was asked for."""

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folders = folders
        self.asked: list[str] = []


class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        assert isinstance(self.server, Hub)
        path = self.path.partition("?")[0].strip("/")
        self.server.asked.append(f"{self.command} {path}")
        name = "/".join(path.removeprefix("api/models/").split("/")[:2])
        if name == "owner/broken":
            return self.reply(500, b"")
        if name not in self.server.folders:
            return self.reply(401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        folder = self.server.folders[name]
        rest = path.removeprefix("api/models/").removeprefix(name + "/")
        files = sorted(folder.iterdir())
        if rest == "revision/main":
            about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}
            return self.reply(200, json.dumps(about).encode())
        if rest == f"tree/{COMMIT}":
            tree = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": digest(file)} for file in files
            ]
            return self.reply(200, json.dumps(tree).encode())
        if rest.startswith("revision/"):
            return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        file = folder / rest.removeprefix(f"resolve/{COMMIT}/")
        assert file.is_file(), path
        return self.reply(200, file.read_bytes(), {"ETag": f'"{digest(file)}"', "X-Repo-Commit": COMMIT})

    def reply(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def client(home: Path, endpoint: str, *names: str, offline: bool = False) -> dict[str, dict[str, Any]]:
    """What a new process gets for these names: the sum of the weights, or the error."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
        "no_proxy": "*",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    environment.pop("HF_TOKEN", None)
    run = subprocess.run([sys.executable, "-c", CLIENT, *names], env=environment, capture_output=True, timeout=120)
    assert run.returncode == 0, run.stderr.decode()
    found: dict[str, dict[str, Any]] = json.loads(run.stdout)
    return found


def total(folder: Path) -> float:
    return float(sum(value.detach().double().abs().sum() for value in bundle.load(folder).network.parameters()))


@pytest.fixture(scope="module")
def folders(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in the ways that hub repositories hold weights."""
    base = tmp_path_factory.mktemp("hub")
    found = {
        name: base / name.replace("/", "--") for name in ("owner/both", "owner/bin", "owner/sharded", "owner/empty")
    }
    tensors = load_file(tiny / "model.safetensors")
    for folder in found.values():
        shutil.copytree(tiny, folder)
        if folder.name != "owner--both":
            (folder / "model.safetensors").unlink()
    for name in ("owner/both", "owner/bin"):
        torch.save(tensors, found[name] / "pytorch_model.bin")
    shards = {
        "model-00001-of-00002.safetensors": sorted(tensors)[:9],
        "model-00002-of-00002.safetensors": sorted(tensors)[9:],
    }
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, found["owner/sharded"] / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (found["owner/sharded"] / "model.safetensors.index.json").write_text(json.dumps(index))
    return found


@pytest.fixture(scope="module")
def hub(folders: dict[str, Path]) -> Iterator[Hub]:
    server = Hub(folders)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(hub: Hub, home: Path) -> dict[str, dict[str, Any]]:
    """What a first client gets of everything, with an empty cache."""
    names = (*hub.folders, "owner/nothing", "owner/broken")
    return client(home, f"http://127.0.0.1:{hub.server_port}", *names)


@pytest.fixture(scope="module")
def offline(online: dict[str, dict[str, Any]], home: Path) -> dict[str, dict[str, Any]]:
    """What a second client gets that may not use the network: nothing answers at its hub's address."""
    return client(home, "http://127.0.0.1:9", *online, "owner/never", offline=True)


@pytest.mark.parametrize("name", ["owner/both", "owner/bin", "owner/sharded"])
def test_a_model_by_hub_name_is_the_model_of_the_folder(
    name: str, online: dict[str, dict[str, Any]], folders: dict[str, Path]
) -> None:
    assert online[name] == {"sum": total(folders[name])}


def test_weights_in_two_formats_are_downloaded_in_one(online: dict[str, dict[str, Any]], hub: Hub) -> None:
    assert "sum" in online["owner/both"]
    fetched = {Path(line).name for line in hub.asked if line.startswith(f"GET owner/both/resolve/{COMMIT}/")}
    assert "model.safetensors" in fetched
    assert "pytorch_model.bin" not in fetched
    assert "README.md" not in fetched


@pytest.mark.parametrize("name", ["owner/both", "owner/bin", "owner/sharded"])
def test_without_a_network_the_cache_serves(
    name: str, offline: dict[str, dict[str, Any]], online: dict[str, dict[str, Any]]
) -> None:
    assert offline[name] == online[name]


def test_when_the_hub_cannot_be_reached_the_cache_serves_and_what_is_not_there_is_an_error(
    online: dict[str, dict[str, Any]], home: Path
) -> None:
    with socket.socket() as taken:  # bound but not listening: connecting is refused
        taken.bind(("127.0.0.1", 0))
        found = client(home, f"http://127.0.0.1:{taken.getsockname()[1]}", "owner/both", "owner/never")
    assert found["owner/both"] == online["owner/both"]
    assert found["owner/never"]["error"] == (
        "There is no folder 'owner/never', the model is not in the local cache, and the hub cannot be reached. "
        "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a folder."
    )


def test_offline_a_model_that_is_not_in_the_cache_is_one_clear_error(offline: dict[str, dict[str, Any]]) -> None:
    assert "the model is not in the local cache, and the hub cannot be reached" in offline["owner/never"]["error"]


def test_a_name_that_the_hub_does_not_have_is_one_clear_error(online: dict[str, dict[str, Any]]) -> None:
    assert online["owner/nothing"]["error"] == (
        "There is no folder 'owner/nothing' and no model of that name on the hub. "
        "Check the name, or log in with a token if the model is private."
    )


def test_a_hub_that_is_broken_is_one_clear_error(online: dict[str, dict[str, Any]]) -> None:
    message = online["owner/broken"]["error"]
    assert "'owner/broken'" in message
    assert "\n" not in message


def test_a_repository_without_weights_is_one_clear_error(online: dict[str, dict[str, Any]]) -> None:
    assert "holds no weights: model.safetensors or pytorch_model.bin is needed" in online["owner/empty"]["error"]
