"""A command's options are the fields of a dataclass; this turns them into a jsonargparse parser and back."""

from __future__ import annotations

import dataclasses
import difflib
import re
from argparse import SUPPRESS, ArgumentError, ArgumentTypeError
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

import jsonargparse
import yaml

from genomamba.errors import ConfigError

PRESETS = Path(__file__).parent / "configs"

T = TypeVar("T")


class CommandParser(jsonargparse.ArgumentParser):
    """Raises ConfigError where argparse would print its usage and exit.

    Args:
        known: names of all options, for suggestions.
    """

    def __init__(self, *args: Any, known: Iterable[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("exit_on_error", False)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self.known = set(known)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise readable(message, self) from ex


def add_options(parser: CommandParser, config: type, hidden: Container[str] = ()) -> None:
    """Adds one option per field of the dataclass ``config``; nested dataclasses become ``--group.field``.

    ``--help`` does not show those that are ``hidden``.
    """
    parser.known = set(leaves(config))
    parser.add_argument(
        "-c", "--config", action="config", help="YAML file with any of these options, or a preset's name"
    )
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        kwargs: dict[str, Any] = {"type": hints[field.name], "help": field.metadata["help"]}
        if field.name in hidden and not dataclasses.is_dataclass(hints[field.name]):  # a group shows its own help
            kwargs["help"] = SUPPRESS
        if default is not dataclasses.MISSING:
            kwargs["default"] = default
        if field.metadata["positional"]:
            parser.add_argument(field.name, **kwargs)
            continue
        if default is dataclasses.MISSING:
            kwargs["required"] = True
        if hints[field.name] in (list[str], list[float]):
            kwargs |= {"type": get_args(hints[field.name])[0], "nargs": "+"}
        elif hints[field.name] is bool and default is False:
            del kwargs["type"]
            kwargs["action"] = "store_true"
        short = field.metadata["short"]
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(*([short] if short else []), flag, **kwargs)


def parse(parser: CommandParser, config: type[T], argv: list[str]) -> T:
    """The options as an instance of ``config``.

    Raises:
        ConfigError: an unknown or misspelt key, a value of the wrong type, a missing option.
    """
    argv = _configs_first(argv, parser.known)
    try:
        values = parser.instantiate(parser.parse_args(argv))
    except (ArgumentError, ArgumentTypeError, TypeError, ValueError) as error:
        raise readable(str(error), parser) from error
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value, least, most = values[field.name], field.metadata["at_least"], field.metadata["at_most"]
        if least is not None and isinstance(value, int | float) and not value >= least:
            raise ConfigError(f"it must be at least {least}", "raise it", field=field.name, value=value)
        if most is not None and isinstance(value, int | float) and not value <= most:
            raise ConfigError(f"it must be at most {most}", "lower it", field=field.name, value=value)
    return config(**{field.name: values[field.name] for field in dataclasses.fields(config)})  # type: ignore[arg-type]


def typed(argv: Sequence[str], config: type) -> set[str]:
    """Dotted names of the options that stand on the command line itself, whatever is in files."""
    long = {word[2:].partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    shorts = {field.metadata["short"]: field.name for field in dataclasses.fields(config)}
    return long | {shorts[word[:2]] for word in argv if word[:2] in shorts}


def leaves(config: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of every option and group of options."""
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        yield prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            yield from leaves(hints[field.name], f"{prefix}{field.name}.")


def _configs_first(argv: list[str], known: set[str]) -> list[str]:
    """The words with each ``-c`` file, its keys checked and a preset by its path, before all others.

    So whatever is given on the command line itself counts, wherever it stands; `-o new -c old/run.yaml` is not `old`.
    """
    configs, others = [], []
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if word in ("-c", "--config"):
            configs += [word, *(str(_config_file(name, known)) for name in islice(words, 1))]
        elif flag == "--config" and equals:
            configs.append(f"--config={_config_file(value, known)}")
        else:
            others.append(word)
    return [*configs, *others]


def _config_file(name: str, known: set[str]) -> Path:
    path = Path(name)
    preset = PRESETS / f"{name}.yaml"
    if not path.is_file():
        if not preset.is_file():
            presets = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
            raise ConfigError("no such file or preset", f"the presets are {presets}", field="config", value=name)
        path = preset
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
        why = " ".join(str(getattr(error, "problem", error)).split())
        raise ConfigError(f"it is not YAML ({why})", "correct it", file=path, line=line) from error
    if tree is not None:
        _check_keys(tree, "", known, path)
    return path


def _check_keys(node: yaml.Node, prefix: str, known: set[str], path: Path) -> None:
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        raise ConfigError("expected `key: value` pairs", "see --print_config", file=path, line=line)
    seen = set()
    for key, value in node.value:
        name = prefix + str(key.value)
        if name in seen:  # YAML's readers take the last in silence
            raise ConfigError("the key stands twice", "keep one", file=path, line=key.start_mark.line + 1, field=name)
        seen.add(name)
        if name not in known:
            raise ConfigError("unknown key", _nearest(name, known), file=path, line=key.start_mark.line + 1, field=name)
        if any(other.startswith(name + ".") for other in known) and isinstance(value, yaml.MappingNode):
            _check_keys(value, name + ".", known, path)


def _nearest(name: str, known: set[str]) -> str:
    # The same last word in another group is nearer than a similar spelling in this one.
    moved = [other for other in known if other.rsplit(".")[-1] == name.rsplit(".")[-1]]
    near = moved or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"the nearest is {near[0]}" if near else "--print_config shows the known ones"


def readable(message: str, parser: CommandParser) -> ConfigError:
    """jsonargparse's message as one line in the house's form."""
    text = " ".join(message.split())
    see = f"see `{parser.prog} --help`"
    key = r'Parser key "(?P<key>[^"]+)": '
    several = r"Does not validate .*? Subtypes: \[(?P<types>.*?)\] Errors: .*? Given value: (?P<value>.*)$"
    if match := re.search(key + several, text):
        of_several = re.sub(r"typing\.Literal\[(.*?)\]", r"\1", match["types"]).replace(", ", " or ")
        return ConfigError(_expected(of_several, match["value"]), see, field=match["key"], value=match["value"])
    if match := re.search(key + r"Expected an? (?P<types>.*?)\.? Got value: (?P<value>.*)$", text):
        types = re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", match["types"])
        return ConfigError(_expected(types, match["value"]), see, field=match["key"], value=match["value"])
    if match := re.search(key + r"Unable to load config", text):
        return ConfigError("it is a group of options", f"give them as --{match['key']}.NAME; {see}", field=match["key"])
    if match := re.search(r"argument (-\w/)?(?P<flag>-\S+): expected (one|at least one) argument", text):
        return ConfigError("it needs a value", see, field=match["flag"])
    if match := re.search(r"[Uu]nrecognized arguments: (?P<words>.*)$", text):
        words = match["words"].split()
        name = next((word for word in words if word.startswith("-")), words[0]).partition("=")[0]
        options = {option.replace("_", "-") if "." not in option else option for option in parser.known}
        near = _nearest(name.lstrip("-"), options)
        hint = near.replace("is ", "is --") if near.startswith("the nearest") else see
        if not name.startswith("-"):
            return ConfigError("it stands where no value is expected", see, field=name)
        return ConfigError("unknown option", hint, field=name)
    if match := re.search(r"required: (?P<names>.*)$", text):
        return ConfigError("missing", see, field=match["names"])
    return ConfigError(text.rstrip("."), see)


def _expected(types: str, value: str) -> str:
    types = re.sub(r"<class '(\w+)'>", r"\1", types).replace("NoneType", "null")
    if re.fullmatch(r"[-+]?\.?(nan|inf|infinity)", value.lower()):
        types = types.replace("float", "a finite number")
    return f"expected {types}"
