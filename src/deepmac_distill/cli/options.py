"""Options that commands share. Each stands here once; a command names the groups that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, cast, get_type_hints

import typer

from deepmac_distill.cli.buckets import groups_here, with_copies
from deepmac_distill.config import look_changes
from deepmac_distill.errors import ConfigError

DATA = "Data"


@dataclass(frozen=True)
class Key:
    """The key of a pipeline file whose value an option is."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The pipeline of a command that cannot do without: an argument, or `--config` as everywhere."""

    pipeline: Annotated[
        Path | None, typer.Argument(help="Pipeline file, or a recipe's name, such as demo.")
    ] = None
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The same, as in the other commands.")
    ] = None

    @property
    def path(self) -> Path:
        """What was named.

        Raises:
            ConfigError: both are given, or none.
        """
        named = [path for path in (self.pipeline, self.config) if path is not None]
        if len(named) != 1:
            got = " and --config ".join(map(str, named)) or "none"
            raise ConfigError(f"pipeline: got {got}, expected one file, or a recipe's name such as demo")
        return named[0]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which pipeline, for commands that also go on with a run."""

    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="Pipeline file, or a recipe's name; default: the run's own, else defaults."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where tensors live."""

    device: Annotated[
        str | None, Key("device"), typer.Option("--device", help="auto (default), cpu, cuda, cuda:N or mps.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Run(Device):
    """Where and how a stage runs."""

    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; default: runs/NAME of the pipeline.")
    ] = None
    seed: Annotated[int | None, Key("seed"), typer.Option("--seed", help="Seed of everything random.")] = None
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override any key: --set teacher.train.lr=1e-4.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Redo:
    """Whether work that is done is done again."""

    force: Annotated[
        bool, typer.Option("--force", help="Redo what was done before, also with other inputs.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Code:
    """Whether the pipeline may bring code of its own."""

    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Import the teacher's code that the pipeline or run names.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Looking:
    """How the model looks at given boxes, where other than it does by itself."""

    look: Annotated[
        str | None,
        typer.Option(
            "--look", help="Look at given boxes otherwise than the model does: boxes=by-size,mirror=true."
        ),
    ] = None

    @property
    def changes(self) -> dict[str, object]:
        """What was given, checked.

        Raises:
            ConfigError: an unknown key, or a value that is refused.
        """
        return {} if self.look is None else look_changes(self.look)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A shorter or longer training."""

    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Training steps; a warm-up that is longer is shortened too."),
    ] = None

    def of(self, *roles: str) -> dict[str, object]:
        """The keys of these roles' trainings, where a number was given."""
        return {} if self.steps is None else {f"{role}.train.steps": self.steps for role in roles}


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Several runs of one recipe."""

    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            min=1,
            help="So many runs, of the seed and those after it, in OUT/seed-N; then their means.",
        ),
    ] = 1


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Whose masks may be used, and how strictly files are read."""

    seen: Annotated[
        list[str] | None,
        Key("data.seen"),
        typer.Option(
            "--seen",
            help="Classes whose masks may be used: voc (default), non-voc, all, with-masks, names, or a "
            ".txt file.",
            rich_help_panel=DATA,
        ),
    ] = None
    hide: Annotated[
        list[str] | None,
        Key("data.hide"),
        typer.Option(
            "--hide",
            help="Seen classes to treat as unseen: names, or a fold such as fold:0/2 of the seen classes.",
            rich_help_panel=DATA,
        ),
    ] = None
    strict: Annotated[
        bool | None,
        Key("data.strict"),
        typer.Option(
            "--strict",
            help="Refuse boxes without area or over the edge, and polygon parts of two points or less; "
            "otherwise they are counted and left out.",
            rich_help_panel=DATA,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Data(Reading):
    """The same, and where paths begin."""

    data: Annotated[
        str | None,
        Key("data.root"),
        typer.Option("--data", help="Folder that the data paths are relative to.", rich_help_panel=DATA),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """The training set."""

    annotations: Annotated[
        str | None,
        Key("data.train_annotations"),
        typer.Option("--annotations", help="COCO JSON to train on and to label.", rich_help_panel=DATA),
    ] = None
    images: Annotated[
        str | None,
        Key("data.train_images"),
        typer.Option("--images", help="Folder of its images.", rich_help_panel=DATA),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ValData:
    """The validation set."""

    val_annotations: Annotated[
        str | None,
        Key("data.val_annotations"),
        typer.Option("--val-annotations", help="COCO JSON to evaluate on.", rich_help_panel=DATA),
    ] = None
    val_images: Annotated[
        str | None,
        Key("data.val_images"),
        typer.Option(
            "--val-images",
            help="Folder of its images; default: the pipeline's, else --images.",
            rich_help_panel=DATA,
        ),
    ] = None


Command = Callable[..., None]


def command(app: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """`app.command(name)`, where a parameter that is one of the groups above becomes its options."""

    def register(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(function).parameters.items()
            if name not in groups
        ]
        options = [*own, *(option for group in groups.values() for option in _options_of(cast(type, group)))]

        @wraps(function)
        def flat(**words: object) -> None:
            given = with_copies(words, but=("out",) if Run in groups.values() else ())
            built = {
                name: cast(type, group)(**{item.name: given.pop(item.name) for item in fields(group)})
                for name, group in groups.items()
            }
            with groups_here(built, Run, function.__name__) as here:
                function(**given, **here)

        flat.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        flat.__annotations__ = {option.name: option.annotation for option in options}
        app.command(name)(flat)
        return function

    return register


def values_of(*groups: object) -> dict[str, object]:
    """The values of options that were given, by the key of the pipeline file that each one is.

    >>> values_of(Run(seed=3, out=Path("runs/a")), Data(seen=["car,person", "dog"]))
    {'seed': 3, 'data.seen': ['car', 'person', 'dog']}
    """
    given: dict[str, object] = {}
    for group in groups:
        for option in _options_of(type(group)):
            value = getattr(group, option.name)
            for key in (about for about in option.annotation.__metadata__ if isinstance(about, Key)):
                if value is not None:
                    given[key.name] = names_of(value) if isinstance(value, list) else value
    return given


def names_of(given: list[str]) -> list[str]:
    """--seen a,b and --seen a --seen b are the same.

    >>> names_of(["car,person", "dog"])
    ['car', 'person', 'dog']
    """
    return [name for part in given for name in part.split(",")]


def _options_of(group: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for item in fields(group):
        yield inspect.Parameter(
            item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=hints[item.name]
        )
