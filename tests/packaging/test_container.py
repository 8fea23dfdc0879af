"""The image's recipe and the manifest say what the code does. Neither can be run here, but each of
their commands can."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from app.config import parse
from tests.appliance import appliance
from tests.tidy.tree import ROOT

PACKAGING = ROOT / "packaging"
FAKE = """
[[local.models]]
id = "acme/fake"
source = "fake:"
engine = "fake"
"""
yaml: Any = import_module("yaml")


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile and its words, with continued lines joined."""
    text = re.sub(r"\\\n", " ", (PACKAGING / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def words_of(name: str) -> str:
    (found,) = [words for each, words in instructions() if each == name]
    return found


def variables() -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(words_of("ENV")))


def test_what_is_copied_is_made_by_the_build_or_is_here() -> None:
    ignored = (PACKAGING / "Dockerfile.dockerignore").read_text()
    build = (PACKAGING / "build.py").read_text()
    for name, words in instructions():
        if name == "COPY":
            source, _ = words.split()
            assert (ROOT / source).is_file()
            assert f"!{source}\n" in ignored
        elif name == "ADD":
            source, _ = words.split()
            assert source == "dist/turnpike-${VERSION}-linux-${MACHINE}.tar.gz"
            # As build.py names the archive, and the folder in it.
            assert 'machine = f"{platform.system().lower()}-{platform.machine()}"' in build
            assert 'name = f"turnpike-{version}-{machine}{self._suffix(edition)}"' in build
            assert 'f"{name}.tar.gz"' in build
            assert 'f"turnpike-{version}"' in build
            assert "!dist/*.tar.gz\n" in ignored


def test_it_runs_as_a_number_and_in_exec_form() -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", words_of("USER"))
    assert json.loads(words_of("ENTRYPOINT")) == ["turnpike"]
    assert json.loads(words_of("CMD")) == ["serve"]
    assert json.loads(words_of("VOLUME")) == [variables()["TURNPIKE_DATA_DIR"]]
    assert words_of("STOPSIGNAL") == "SIGTERM"
    assert "latest" not in words_of("FROM")


def test_its_configuration_is_one_and_listens_where_it_is_exposed() -> None:
    config = parse(tomllib.loads((PACKAGING / "container.toml").read_text()), source="container")
    assert words_of("EXPOSE") == str(config.server.port)
    assert config.server.host == "0.0.0.0"
    ((source, target),) = [words.split() for name, words in instructions() if name == "COPY"]
    assert source == "packaging/container.toml"
    assert target == variables()["TURNPIKE_CONFIG"]


def launcher(folder: Path) -> Path:
    """``turnpike`` on the path, as the image has it; this source is the program."""
    folder.mkdir()
    file = folder / "turnpike"
    file.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m app "$@"\n')
    file.chmod(0o755)
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_health_check_works_as_it_stands(tmp_path: Path) -> None:
    command = json.loads(words_of("HEALTHCHECK").partition("CMD ")[2])
    with appliance(tmp_path / "data", FAKE) as running:
        environment = {
            "PATH": f"{launcher(tmp_path / 'bin')}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            **dict.fromkeys(variables(), ""),
            "TURNPIKE_CONFIG": str(running.config_path),
            "TURNPIKE_DATA_DIR": str(running.data_dir),
        }

        def check() -> int:
            return subprocess.run(
                command, env=environment, capture_output=True, timeout=30, check=False
            ).returncode

        assert check() == 0
        assert running.stop() == 0
        assert check() == 1


def manifest() -> dict[str, Any]:
    text = (PACKAGING / "kubernetes.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return {each["kind"]: each for each in yaml.safe_load_all(block)}


def test_the_manifest_has_one_pod_that_nobody_replaces_before_it_ends() -> None:
    spec = manifest()["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    config = parse(
        tomllib.loads(manifest()["ConfigMap"]["data"]["config.toml"]), source="kubernetes.md"
    )
    assert pod["terminationGracePeriodSeconds"] > 2 * config.server.drain_seconds_max
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert manifest()["Service"]["spec"]["selector"] == spec["selector"]["matchLabels"]


def test_the_manifests_ports_paths_and_user_are_the_images_and_the_codes(tmp_path: Path) -> None:
    found = manifest()
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    config = parse(tomllib.loads(found["ConfigMap"]["data"]["config.toml"]), source="kubernetes.md")
    (port,) = container["ports"]
    assert port["containerPort"] == config.server.port == int(words_of("EXPOSE"))
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    user, group = words_of("USER").split(":")
    context = pod["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
    assert container["args"] == json.loads(words_of("CMD"))
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts["data"] == variables()["TURNPIKE_DATA_DIR"]
    assert mounts["configuration"] == str(Path(variables()["TURNPIKE_CONFIG"]).parent)
    assert config.secrets.master_key == f"file:{mounts['master-key']}/master.key"
    assert {each["name"] for each in pod["volumes"]} == set(mounts)
    assert (
        pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
        == (found["PersistentVolumeClaim"]["metadata"]["name"])
    )
    import httpx

    with appliance(tmp_path / "data", FAKE) as running:
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container[name]["httpGet"]
            assert probe["port"] == port["name"]
            url = f"{running.base_url}{probe['path']}"
            assert httpx.get(url, trust_env=False).status_code == 200
