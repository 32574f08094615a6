"""A real Prometheus over pages of ours, to ask it what a dashboard would ask.

with Prometheus(rules=[file]) as prometheus:
    prometheus.scrape({"cartridge-warp": [8080]})
    prometheus.ask("up", since=start)
"""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from warp.errors import StartFailed
from warp.own_process import LOCALHOST, LocalServer
from warp.testing.servers import prometheus_program


@dataclass(frozen=True, slots=True)
class Series:
    labels: Mapping[str, str]
    values: tuple[float, ...]  # in time, without those that are not numbers


class Prometheus(LocalServer):
    """Scrapes every second, and evaluates rules as often."""

    name: ClassVar[str] = "prometheus"

    def __init__(self, *, rules: Sequence[Path] = (), every: str = "1s") -> None:
        super().__init__()
        self.rules = tuple(rules)
        self.every = every

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"

    def scrape(self, jobs: Mapping[str, Sequence[int]]) -> None:
        """From now on these ports of this machine, and no others."""
        targets = [
            {"targets": [f"{LOCALHOST}:{port}" for port in ports], "labels": {"job": job}}
            for job, ports in jobs.items()
        ]
        # Moved into its place, so that it is never seen half written.
        written = self.directory / "targets.new"
        written.write_text(json.dumps(targets))
        written.rename(self.directory / "targets.json")

    def scraped(self) -> dict[int, str]:
        """The ports that it has had an answer from, and when the last one came."""
        active = self._get("targets", state="active")["activeTargets"]
        return {
            int(target["scrapeUrl"].split("/")[2].split(":")[1]): target["lastScrape"]
            for target in active
            if target["health"] == "up"
        }

    def ask(self, expression: str, *, since: float, until: float, step: float) -> list[Series]:
        """What a panel shows of this time; raises what Prometheus complains of."""
        found = self._get("query_range", query=expression, start=since, end=until, step=step)
        return [
            Series(
                {k: v for k, v in series["metric"].items() if k != "__name__"},
                tuple(float(v) for _, v in series["values"] if v not in ("NaN", "+Inf", "-Inf")),
            )
            for series in found["result"]
        ]

    def rules_loaded(self) -> dict[str, dict[str, Any]]:
        """The alert rules by name, as it read and last evaluated them."""
        groups = self._get("rules")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def _get(self, path: str, **parameters: Any) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - http, always
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            with refused:
                raise ValueError(f"{parameters}: {json.load(refused)['error']}") from None

    def _prepare(self) -> None:
        (self.directory / "targets.json").write_text("[]")
        settings = {
            "global": {"scrape_interval": self.every, "evaluation_interval": self.every},
            "rule_files": [str(file.resolve()) for file in self.rules],
            "scrape_configs": [
                {
                    "job_name": "files",
                    "file_sd_configs": [
                        {"files": ["targets.json"], "refresh_interval": self.every}
                    ],
                }
            ],
        }
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(settings))

    def _command(self) -> Sequence[str]:
        return [
            str(prometheus_program()),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--query.max-concurrency=2",
            f"--web.listen-address={LOCALHOST}:{self.port}",
            "--log.level=info",
        ]

    def _ready(self) -> bool:
        # Its own log: somebody else's server may answer on this port while ours still loses it.
        return "Server is ready to receive web requests" in self.log_since_start()


def promtool(*arguments: str | Path) -> str:
    """What promtool says; its complaints are raised."""
    done = subprocess.run(
        [prometheus_program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise StartFailed(f"promtool {' '.join(map(str, arguments))}:\n{done.stdout}{done.stderr}")
    return done.stdout
