"""Reads the layers of the configuration and lays them over each other, remembering who said what.

file < environment < flags.  The result is one tree of plain values and, for each path in it,
the origin of the value; nothing here knows what the keys mean, save where the connection string
stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import yaml

from warp import plugins
from warp.errors import ConfigError
from warp.options import MASK

Step = str | int
Place = tuple[Step, ...]

PREFIX: Final = "CARTRIDGE_WARP_"
SHORT: Final = {
    "mode": ("mode",),
    "source": ("source", "connection_string"),
    "destination": ("destination", "connection_string"),
    "redis": ("coordination", "redis_url"),
    "redis_url": ("coordination", "redis_url"),
    "processes": ("coordination", "processes"),
    "slots": ("coordination", "slots"),
    "port": ("monitoring", "prometheus", "port"),
    "log_level": ("monitoring", "logging", "level"),
}
"""Flags, and the short environment variables, by the path they set."""
# Not CARTRIDGE_WARP_PORT: Kubernetes sets that itself beside a service named cartridge-warp.
_SHORT_ENVIRONMENT: Final = ("mode", "source", "destination", "redis_url", "log_level")
INHERITED: Final = PREFIX + "INHERITED"
"""Carries a parent's flags to its child processes, as JSON."""

_VARIABLE = re.compile(r"\$\{([^}]*)\}|\$\$(?=\{)|(\$\{)")
_NAME = re.compile(r"([A-Za-z_]\w*)(?::-(.*))?", re.DOTALL)


class Layer(IntEnum):
    DEFAULT = 0
    FILE = 1
    ENVIRONMENT = 2
    FLAG = 3


@dataclass(frozen=True, slots=True)
class Origin:
    layer: Layer
    where: str  # config.yaml:12, CARTRIDGE_WARP_SOURCE, --source

    def __str__(self) -> str:
        return self.where


DEFAULT: Final = Origin(Layer.DEFAULT, "default")


@dataclass(slots=True)
class Tree:
    """The values of all layers, the strongest on top."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, Origin] = field(default_factory=dict)

    def get(self, place: Place) -> Any:
        here: Any = self.values
        for step in place:
            if isinstance(here, Mapping):
                here = here.get(str(step))
            elif isinstance(here, list) and isinstance(step, int) and step < len(here):
                here = here[step]
            else:
                return None
        return here

    def origin(self, place: Place) -> Origin:
        """Of the value at a place, else of the nearest block around it."""
        for length in range(len(place), 0, -1):
            if found := self.origins.get(place[:length]):
                return found
        return DEFAULT

    def put(self, place: Place, value: Any, origin: Origin) -> None:
        here: Any = self.values
        for index, step in enumerate(place[:-1]):
            following = _child(here, step)
            if not isinstance(following, dict | list):
                following = {}
                _set(here, step, following, written(place[: index + 1]), origin)
                self.origins[place[: index + 1]] = origin
            here = following
        _set(here, place[-1], value, written(place), origin)
        for inner in [p for p in self.origins if p[: len(place)] == place]:
            del self.origins[inner]
        self.origins[place] = origin

    def drop(self, place: Place) -> None:
        parent = self.get(place[:-1])
        if isinstance(parent, dict):
            parent.pop(str(place[-1]), None)
        self.origins.pop(place, None)


def _child(here: Any, step: Step) -> Any:
    if isinstance(here, dict):
        return here.get(str(step))
    return here[int(step)] if str(step).isdigit() and int(step) < len(here) else None


def _set(here: Any, step: Step, value: Any, place: str, origin: Origin) -> None:
    if isinstance(here, dict):
        here[str(step)] = value
    elif str(step).isdigit() and int(step) <= len(here):
        here[int(step) : int(step) + 1] = [value]
    else:
        raise ConfigError(
            f"expected a number from 0 to {len(here)} in this place of a list ({origin})",
            place=place,
        )


def written(place: Sequence[Step]) -> str:
    """`schemas[1].batch_size`"""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def read(path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Tree:
    """All layers, expanded, with the connection strings settled."""
    tree = read_file(path, environment) if path else Tree()
    _lay_environment(tree, environment)
    for name, value in flags.items():
        if value is not None and name in SHORT:
            _set_short(tree, name, value, Origin(Layer.FLAG, f"--{name}"))
    for block in ("source", "destination", "coordination", "privacy"):
        _read_secret_files(tree, block)
    for end in ("source", "destination"):
        _settle_type(tree, end)
    _settle_database(tree)
    return tree


# The file


def read_file(path: Path, environment: Mapping[str, str]) -> Tree:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"expected a readable file, found: {error.strerror}; check the path and its rights",
            place=str(path),
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"expected UTF-8 text, found another encoding at byte {error.start}", place=str(path)
        ) from None
    tree = Tree()
    values = _parse_json(path, text) if path.suffix == ".json" else _parse_yaml(path, text, tree)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(
            "expected a block of keys such as `source:` and `destination:`, found "
            f"{kind_of(values)}",
            place=str(path),
        )
    tree.origins.setdefault((), Origin(Layer.FILE, path.name))
    for key in values:
        tree.origins.setdefault((key,), Origin(Layer.FILE, path.name))
    tree.values = _said(_expand(values, (), tree, environment))
    return tree


def _parse_json(path: Path, text: str) -> Any:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise ConfigError(
                    f"expected each key once, found {key!r} twice; remove one", place=str(path)
                )
            result[key] = value
        return result

    try:
        return json.loads(text, object_pairs_hook=no_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"expected JSON, found a mistake at line {error.lineno}, column {error.colno}: "
            f"{error.msg}",
            place=str(path),
        ) from None


def _parse_yaml(path: Path, text: str, tree: Tree) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _YamlReader(path, loader, tree).value(node, (), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(
            f"expected YAML, found a mistake{at}: {error.problem or error.context}",
            place=str(path),
        ) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"expected YAML, found a character that must not stand in it, at {error.position}",
            place=str(path),
        ) from None
    finally:
        loader.dispose()


class _YamlReader:
    """Builds plain values from YAML nodes, noting each line, refusing a key written twice.

    PyYAML's own constructor keeps the last of two equal keys silently.
    """

    def __init__(self, path: Path, loader: yaml.SafeLoader, tree: Tree) -> None:
        self._path = path
        self._loader = loader
        self._tree = tree

    def value(self, node: yaml.Node, place: Place, around: tuple[int, ...]) -> Any:
        line = node.start_mark.line + 1
        self._tree.origins[place] = Origin(Layer.FILE, f"{self._path.name}:{line}")
        if id(node) in around:
            raise ConfigError(
                f"expected an anchor that does not contain itself (line {line})",
                place=written(place) or str(self._path),
            )
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            raise ConfigError(
                f"expected plain YAML, found the tag {node.tag!r} ({self._path.name}:{line}); "
                "remove it",
                place=written(place) or str(self._path),
            )
        inside = (*around, id(node))
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node, place)
            self._loader.flatten_mapping(node)  # `<<: *anchor`
            return {
                key.value: self.value(value, (*place, key.value), inside)
                for key, value in node.value
            }
        if isinstance(node, yaml.SequenceNode):
            return [self.value(n, (*place, i), inside) for i, n in enumerate(node.value)]
        return self._loader.construct_object(node)

    def _check_keys(self, node: yaml.MappingNode, place: Place) -> None:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(
                    f"expected a key written as text ({self._path.name}:{line})",
                    place=written(place) or str(self._path),
                )
            if key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                raise ConfigError(
                    f"expected each key once, found it in line {lines[key.value]} and again in "
                    f"line {line} of {self._path.name}; remove one",
                    place=written((*place, key.value)),
                )
            lines[key.value] = line


def _said(value: Any) -> Any:
    """Without keys that were written but left empty: they say nothing.

    A table named without settings is said all the same.
    """
    if isinstance(value, dict):
        return {
            k: _said({n: {} if v is None else v for n, v in v.items()})
            if k == "tables" and isinstance(v, dict)
            else _said(v)
            for k, v in value.items()
            if v is not None
        }
    if isinstance(value, list):
        return [_said(v) for v in value]
    return value


def _expand(value: Any, place: Place, tree: Tree, environment: Mapping[str, str]) -> Any:
    """`${VAR}` and `${VAR:-default}` in every text; `$${` stands for `${`."""
    if isinstance(value, dict):
        return {k: _expand(v, (*place, k), tree, environment) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, (*place, i), tree, environment) for i, v in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    used: list[str] = []

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        named = _NAME.fullmatch(found[1] or "")
        if named is None:
            raise ConfigError(
                f"expected ${{NAME}} or ${{NAME:-default}}, found {found[0][:40]!r} "
                f"({tree.origin(place)})",
                place=written(place),
            )
        name, default = named[1], named[2]
        used.append(name)
        # As in a shell, `:-` also stands for a variable that is set but empty.
        if (given := environment.get(name)) or (given is not None and default is None):
            return given
        if default is None:
            raise ConfigError(
                f"expected the environment variable {name} to be set, found none; set it, or "
                f"write ${{{name}:-default}} ({tree.origin(place)})",
                place=written(place),
            )
        return default

    result = _VARIABLE.sub(replace, value)
    if used:
        origin = tree.origin(place)
        names = ", ".join(f"${{{name}}}" for name in used)
        tree.origins[place] = Origin(origin.layer, f"{origin.where} ({names})")
    return result


# The environment and the flags


def _lay_environment(tree: Tree, environment: Mapping[str, str]) -> None:
    """`CARTRIDGE_WARP_SOURCE__DATABASE` first, then the short ones, then a parent's flags.

    Other names with the prefix are none of ours: Kubernetes puts CARTRIDGE_WARP_SERVICE_HOST and
    the like beside a service of that name.
    """
    for name in sorted(environment):
        if name.startswith(PREFIX) and "__" in name:
            steps = name.removeprefix(PREFIX).split("__")
            place = _match_steps(tree, steps)
            tree.put(place, _value_of(environment[name]), Origin(Layer.ENVIRONMENT, name))
    for short in _SHORT_ENVIRONMENT:
        name = PREFIX + short.upper()
        if environment.get(name):
            _set_short(tree, short, environment[name], Origin(Layer.ENVIRONMENT, name))
    for short, value in inherited(environment).items():
        if short in SHORT:
            _set_short(tree, short, value, Origin(Layer.FLAG, f"--{short}"))


def inherited(environment: Mapping[str, str]) -> dict[str, Any]:
    """The flags of the process that started this one."""
    text = environment.get(INHERITED)
    if not text:
        return {}
    try:
        flags = json.loads(text)
    except json.JSONDecodeError:
        flags = None
    if not isinstance(flags, dict):
        raise ConfigError("expected JSON written by a parent process; unset it", place=INHERITED)
    return flags


def _match_steps(tree: Tree, steps: Sequence[str]) -> Place:
    """Environment names are upper case; keys already written keep their own spelling."""
    place: list[Step] = []
    for step in steps:
        here = tree.get(tuple(place))
        if isinstance(here, Mapping):
            same = [k for k in here if k.lower() == step.lower()]
            place.append(same[0] if same else step.lower())
        else:
            place.append(int(step) if isinstance(here, list) and step.isdigit() else step.lower())
    return tuple(place)


def _value_of(text: str) -> Any:
    """A list or block may be given as JSON; everything else is read by its key's own type."""
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _set_short(tree: Tree, name: str, value: Any, origin: Origin) -> None:
    tree.put(SHORT[name], value, origin)
    if name == "port":
        tree.put(("monitoring", "prometheus", "enabled"), True, origin)


# Connection strings


def _prefer(tree: Tree, block: str, key: str) -> None:
    direct, from_file = (block, key), (block, f"{key}_file")
    if tree.get(direct) is None or tree.get(from_file) is None:
        return
    ours, theirs = tree.origin(direct), tree.origin(from_file)
    if ours.layer == theirs.layer:
        raise ConfigError(
            f"expected one of {key} and {key}_file, found both ({ours}, {theirs}); remove one",
            place=written(direct),
        )
    tree.drop(min((ours.layer, direct), (theirs.layer, from_file))[1])


def _read_secret_files(tree: Tree, block: str) -> None:
    """`connection_string_file: /run/secrets/…` reads the value from there."""
    for key in ("key",) if block == "privacy" else ("connection_string", "redis_url", "password"):
        _prefer(tree, block, key)
        place: Place = (block, f"{key}_file")
        name = tree.get(place)
        if name is None:
            continue
        origin = tree.origin(place)
        try:
            text = Path(str(name)).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
            raise ConfigError(
                f"expected a readable file with the secret, found {str(name)!r}: {reason} "
                f"({origin})",
                place=written(place),
            ) from None
        if not text:
            raise ConfigError(
                f"expected a file with the secret, found {str(name)!r} empty ({origin})",
                place=written(place),
            )
        tree.drop(place)
        tree.put((block, key), text, Origin(origin.layer, f"{origin.where} ({name})"))


def _settle_type(tree: Tree, end: str) -> None:
    """The scheme says the type where it is not written; where it is, they must agree."""
    block = tree.get((end,))
    if block is not None and not isinstance(block, dict):
        found = MASK if isinstance(block, str) else kind_of(block)
        raise ConfigError(
            f"expected a block of keys, found {found} ({tree.origin((end,))})", place=end
        )
    url, given = tree.get((end, "connection_string")), tree.get((end, "type"))
    scheme_type = plugins.type_of_url(url) if isinstance(url, str) else None
    if given is not None and not isinstance(given, str):
        return  # the block's own check says what is wrong
    if isinstance(given, str):
        tree.values[end]["type"] = given = plugins.canonical(given)
    url_origin, type_origin = tree.origin((end, "connection_string")), tree.origin((end, "type"))
    if block is None:
        raise ConfigError(
            f"missing; expected a block with a connection_string, or {PREFIX}{end.upper()}, "
            f"or --{end} URL",
            place=end,
        )
    if given is None and scheme_type is None:
        raise ConfigError(
            "missing; expected the name of a connector, or a connection string that starts with "
            + ", ".join(f"{s}://" for s in ("mongodb", "postgresql", "mysql", "bigquery")),
            place=f"{end}.type",
        )
    if scheme_type is None or given == scheme_type or ":" in (given or ""):
        return
    if given is not None and type_origin.layer >= url_origin.layer:
        scheme = str(url).partition("://")[0]
        raise ConfigError(
            f"expected the type of a connection string that starts with {scheme}:// "
            f"({scheme_type}), found {given!r} ({type_origin})",
            place=f"{end}.type",
        )
    tree.put((end, "type"), scheme_type, url_origin)


def _settle_database(tree: Tree) -> None:
    """The URL's path names the source's database, unless the same or a stronger layer does."""
    place: Place = ("source", "database")
    url = tree.get(("source", "connection_string"))
    path = database_of(url) if isinstance(url, str) else None
    origin = tree.origin(("source", "connection_string"))
    if path and (tree.get(place) is None or tree.origin(place).layer < origin.layer):
        tree.put(place, path, origin)


def database_of(url: str) -> str | None:
    if "://" not in url:
        return None
    try:
        return unquote(urlsplit(url).path.strip("/")) or None
    except ValueError:
        return None


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value of a tree that is no block, with its path."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*place, str(key)))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, (*place, index))
    else:
        yield place, value


def kind_of(value: object) -> str:
    """How a value is called in an error, never what is in it."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a block of keys"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)
