"""What an installed wheel holds, seen from outside the tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

import pyro_nlp

ROOT = Path(pyro_nlp.__file__).resolve().parents[1]
BUILT_FROM = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "pyro_nlp", "models", "guides")

pytestmark = pytest.mark.skipif(not (ROOT / "setup.cfg").exists(), reason="pyro_nlp is not a checkout")


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build in the tree would take up what an earlier one left in build/."""
    tree = tmp_path_factory.mktemp("tree")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, tree / name)
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(out), str(tree))
    (made,) = out.glob("*.whl")
    return made


def listed(folder: Path, suffixes: set[str]) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in suffixes}


def test_the_wheel_holds_every_source_file_once_and_nothing_else(wheel: Path) -> None:
    suffixes = {".py", ".yaml", ".bib", ".html", ".css", ".js"}
    expected = {f"pyro_nlp/{name}" for name in listed(ROOT / "pyro_nlp", suffixes)} | {"pyro_nlp/py.typed"}
    for folder in ("models", "guides"):
        expected |= {f"pyro_nlp/{folder}/{name}" for name in listed(ROOT / folder, suffixes)}
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert sorted(names) == sorted(expected)


def test_the_package_list_names_every_package_of_the_tree() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    found = {"pyro_nlp.models", "pyro_nlp.guides"}
    for init in (ROOT / "pyro_nlp").rglob("__init__.py"):
        found.add(".".join(init.parent.relative_to(ROOT).parts))
    assert set(config["options"]["packages"].split()) == found


def test_an_installed_wheel_gives_models_guides_recipes_and_the_command(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip("install", "-q", "--no-deps", "--no-index", "--no-compile", "--target", str(site), str(wheel))
    code = """if True:
        import importlib.metadata, importlib.resources, json
        import pyro_nlp, pyro_nlp.guides.gaussian, pyro_nlp.models.sentence_vae
        files = importlib.resources.files("pyro_nlp")
        (command,) = importlib.metadata.entry_points(group="console_scripts", name="pyro-nlp")
        print(json.dumps({
            "version": importlib.metadata.version("pyro-nlp"),
            "files": [m.__file__ for m in (pyro_nlp, pyro_nlp.models, pyro_nlp.guides)],
            "recipes": sorted(file.name for file in files.joinpath("recipes").iterdir() if file.is_file()),
            "bibliography": files.joinpath("references.bib").is_file(),
            "command": callable(command.load()),
        }))
    """
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"] == pyro_nlp.__version__
    assert all(Path(name).is_relative_to(site) for name in found["files"]), "the checkout shadows the wheel"
    assert found["recipes"] == sorted(path.name for path in (ROOT / "pyro_nlp/recipes").glob("*.yaml"))
    assert {"ring.yaml", "sentence_vae.yaml"} <= set(found["recipes"])
    assert found["bibliography"]
    assert found["command"]
