"""The container files agree with the project and with each other. ``cluster/test_multinode.py`` runs their commands."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def requirements(project) -> dict[str, Requirement]:
    return {requirement.name: requirement for requirement in map(Requirement, project["dependencies"])}


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (DOCKER / "Dockerfile").read_text(encoding="utf-8"))
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [tuple(line.split(maxsplit=1)) for line in lines]


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def arguments_of(dockerfile, instruction: str) -> list[str]:
    return [arguments for name, arguments in dockerfile if name == instruction]


def defaults(dockerfile) -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in arguments_of(dockerfile, "ARG"))


def installed(dockerfile) -> dict[str, Requirement]:
    """What the first `pip install` asks for, by name, with build arguments put in."""
    line = next(line for line in arguments_of(dockerfile, "RUN") if line.startswith("pip install"))
    for name, value in defaults(dockerfile).items():
        line = line.replace(f"${{{name}}}", value)
    quoted = map(Requirement, re.findall(r'"([a-z][^"/]*)"', line))
    return {requirement.name: requirement for requirement in quoted}


def test_the_base_image_has_a_python_that_the_project_supports(dockerfile, project):
    (base,) = arguments_of(dockerfile, "FROM")
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", base)
    assert version
    assert version[1] in SpecifierSet(project["requires-python"])


def test_ray_is_pinned_to_a_version_that_the_project_supports(dockerfile, requirements):
    ray = installed(dockerfile)["ray"]
    assert ray.extras == requirements["ray"].extras
    assert str(ray.specifier) == f"=={defaults(dockerfile)['RAY_VERSION']}"
    assert defaults(dockerfile)["RAY_VERSION"] in requirements["ray"].specifier


def test_the_tested_ray_is_the_one_in_the_image(dockerfile):
    import ray

    image, tested = defaults(dockerfile)["RAY_VERSION"], ray.__version__
    assert image.split(".")[:2] == tested.split(".")[:2], "raise RAY_VERSION in docker/Dockerfile"


def test_pytorch_is_the_one_that_the_project_asks_for(dockerfile, requirements):
    assert installed(dockerfile)["torch"].specifier == requirements["torch"].specifier
    assert defaults(dockerfile)["TORCH_INDEX"] == "https://download.pytorch.org/whl/cpu"


def test_everything_that_is_copied_exists_and_passes_the_ignore_file(dockerfile):
    sources = [word for line in arguments_of(dockerfile, "COPY") for word in line.split()[:-1] if word[:2] != "--"]
    assert {"pyproject.toml", "lossevo", "search_spaces"} <= set(sources)
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore, "a cohort beside the sources must not slip into the image"
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore


def test_the_image_does_not_run_as_root(dockerfile):
    assert arguments_of(dockerfile, "USER") == ["${USER_ID}"]
    assert int(defaults(dockerfile)["USER_ID"]) > 0


def test_all_services_run_one_image_built_from_this_repository(compose):
    assert set(compose["services"]) == {"head", "worker", "search"}
    for service in compose["services"].values():
        assert service["image"] == "lossevo"
        context = (DOCKER / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")


def test_build_arguments_exist_and_have_the_defaults_of_the_dockerfile(compose, dockerfile):
    known = defaults(dockerfile)
    for name, value in compose["services"]["head"]["build"]["args"].items():
        assert value == f"${{{name}:-{known[name]}}}"


def test_every_service_needs_the_token_and_no_token_is_a_default(compose):
    for service in compose["services"].values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")  # empty is refused, too


def test_nothing_is_published_to_the_network_of_the_host(compose):
    for service in compose["services"].values():
        assert not {"ports", "network_mode", "privileged"} & set(service)


def test_shared_memory_is_larger_than_the_64_mb_of_docker(compose):
    for service in compose["services"].values():
        assert re.fullmatch(r"\$\{SHM_SIZE:-\d+gb\}", service["shm_size"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("head", {"head": True, "port": 6379, "num_cpus": 0, "block": True}),
        ("worker", {"head": False, "address": "head:6379", "num_cpus": 1, "block": True}),
    ],
)
def test_ray_knows_the_options_that_its_services_use(compose, name, expected):
    from ray.scripts.scripts import start

    command = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", word) for word in compose["services"][name]["command"]]
    assert command[:2] == ["ray", "start"]
    options = start.make_context("ray start", command[2:]).params
    assert {option: options[option] for option in expected} == expected


def test_workers_and_the_search_wait_for_a_healthy_head(compose):
    services = compose["services"]
    assert services["head"]["healthcheck"]["test"][0] == "CMD"
    for name in ("worker", "search"):
        assert services[name]["depends_on"] == {"head": {"condition": "service_healthy"}}
    assert services["search"]["profiles"] == ["search"]  # `up` starts head and workers only
    assert services["search"]["environment"]["RAY_HEAD"] == "head:6379"


def test_the_default_search_is_a_command_that_exists(compose):
    from typer.main import get_command

    from lossevo.cli.app import app

    program, name, *options = compose["services"]["search"]["command"]
    assert program == "lossevo"
    command = get_command(app).commands[name]
    assert command.make_context(name, options).params["address"] == "head:6379"


def test_join_cluster_is_a_script_that_insists_on_the_address(compose):
    (entrypoint,) = compose["services"]["search"]["entrypoint"]
    script = DOCKER / entrypoint
    assert os.access(script, os.X_OK)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_HEAD"}
    ended = subprocess.run([script, "true"], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "RAY_HEAD: is HOST:PORT of the head" in ended.stderr
