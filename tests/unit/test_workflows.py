"""What workflows and pages run is there: targets of make, their variables, files, versions.

That workflows are well-formed is actionlint's to say (`make check`).  GitHub is not asked.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.M))
VARIABLES = set(re.findall(r"\$\((?:or \$\(|if \$\()?([A-Z_]+)\b", MAKEFILE)) | set(
    re.findall(r"^([A-Z_]+) *\??=", MAKEFILE, re.M)
)
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = {
    file.stem: yaml.safe_load(file.read_text())
    for file in (ROOT / ".github" / "workflows").glob("*.yml")
}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]


def steps(workflow: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each step with the name of its job."""
    for name, job in WORKFLOWS[workflow]["jobs"].items():
        yield from ((name, step) for step in job["steps"])


RUN = [
    pytest.param(step["run"], id=f"{workflow}-{job}-{number}")
    for workflow in WORKFLOWS
    for number, (job, step) in enumerate(steps(workflow))
    if "run" in step
]


VALUE = r"""(?:'[^']*'|"[^"]*"|[^\s'"`]*)"""
MAKE = re.compile(rf"(?:^|[`$]) *make ([a-z][a-z-]*(?: +[A-Z_]+={VALUE})*)", re.M)


def makes(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each target that make is asked for, with the variables it is given."""
    for found in MAKE.findall(text):
        target, *given = shlex.split(found)
        yield target, [word.partition("=")[0] for word in given]


def unknown(text: str) -> list[str]:
    found = []
    for target, given in makes(text):
        found += [target] if target not in TARGETS else []
        found += [name for name in given if name not in VARIABLES]
    return found


@pytest.mark.parametrize("script", RUN)
def test_a_step_runs_what_is_there(script: str) -> None:
    plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
    assert unknown(plain) == []
    subprocess.run(["bash", "-n"], input=plain, text=True, check=True)
    for word in shlex.split(plain, comments=True):
        if re.fullmatch(r"\.?[\w.-]+/[\w./-]+", word) and not word.startswith(("ours/", "dist/")):
            assert (ROOT / word).exists(), word


def test_what_is_not_there_would_be_found() -> None:
    assert unknown("make chaos MINUTES=60 SOURCE=mongodb") == []
    assert unknown("make chaoss MINUTE=60") == ["chaoss", "MINUTE"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_target_that_a_page_names_exists(page: Path) -> None:
    code = re.findall(r"^ *```.*?^ *```|`[^`\n]+`", page.read_text(), re.M | re.S)
    assert unknown("\n".join(code).replace("=…", "=x")) == []


def test_what_decides_is_a_program() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_every_python_that_the_package_names_is_tried_and_built_for() -> None:
    named = {
        label.rpartition(" ")[2]
        for label in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", label)
    }
    tried = set(WORKFLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"])
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    built = {f"3.{wheel[3:].partition('-')[0]}" for wheel in tool["cibuildwheel"]["build"]}
    assert tried == named == built
    assert PROJECT["requires-python"] == f">={min(named, key=lambda v: int(v[2:]))}"


def test_the_site_is_built_by_what_the_package_asks_for() -> None:
    [script] = [step["run"] for job, step in steps("ci") if job == "site" and "run" in step]
    named = re.findall(r"'([^']+)'", script)
    assert set(named) == set(PROJECT["optional-dependencies"]["docs"])


def test_chaos_is_asked_of_sources_that_it_has() -> None:
    asked = WORKFLOWS["nightly"]["jobs"]["chaos"]["strategy"]["matrix"]["source"]
    [choices] = re.findall(r"SOURCE=([\w|]+)\b", MAKEFILE)[:1]
    assert asked == choices.split("|")


def test_the_rows_that_are_waited_for_in_compose_are_those_it_makes() -> None:
    [script] = [step["run"] for job, step in steps("nightly") if "psql" in step.get("run", "")]
    [table] = re.findall(r"from (\S+)'", script)
    schema, _, name = table.partition(".")
    configured = yaml.safe_load((ROOT / "docker" / "config.yaml").read_text())
    assert schema == configured["source"]["database"]
    assert re.search(rf"\b{name}\b", (ROOT / "docker" / "shop.js").read_text())


def test_a_release_publishes_what_its_jobs_upload() -> None:
    uploaded = {
        re.sub(r"\$\{\{.*?\}\}", "x", step["with"]["name"])
        for _, step in steps("release")
        if "upload-artifact" in step.get("uses", "")
    }
    assert uploaded == {"notes", "dist-x", "dist-sdist"}
    publish = WORKFLOWS["release"]["jobs"]["publish"]
    assert set(publish["needs"]) == set(WORKFLOWS["release"]["jobs"]) - {"publish", "check"}
