"""What the repository's Dockerfile says, read for the image that the testbed makes without a container engine.

One recipe: environment, user, entry point, versions and copied folders stand in the Dockerfile and are never repeated.
"""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from testbed.errors import BuildFailed

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Recipe:
    """The Dockerfile's facts that a tar needs. `copies` maps a path of the repository to its place in the image."""

    python: str
    suite: str
    requirements: str
    copies: dict[str, str]
    env: dict[str, str]
    labels: dict[str, str]
    user: str
    workdir: str
    entrypoint: list[str]


def read_recipe(dockerfile: Path = ROOT / "Dockerfile") -> Recipe:
    """Reads the Dockerfile. Raises BuildFailed for an instruction that the tar would not follow."""
    facts = _Facts()
    for keyword, rest in _instructions(dockerfile.read_text(encoding="utf-8")):
        facts.take(keyword, rest)
    return facts.recipe()


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    for line in filter(None, (line.strip() for line in joined.splitlines())):
        keyword, _, rest = line.partition(" ")
        yield keyword.upper(), rest.strip()


@dataclass
class _Facts:
    """Collects instructions; of the final stage only what the image's configuration is made of."""

    args: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    requirements: str = ""
    user: str = ""
    workdir: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    final: bool = False

    def take(self, keyword: str, rest: str) -> None:
        if keyword == "FROM":
            self.final = " AS " not in rest.upper()
        elif keyword in ("ARG", "ENV", "LABEL"):
            pairs = dict(pair.split("=", 1) for pair in shlex.split(rest))
            {"ARG": self.args, "ENV": self.env, "LABEL": self.labels}[keyword].update(pairs)
        elif keyword == "COPY":
            self._copy(rest)
        elif keyword == "USER":
            self.user = rest
        elif keyword == "WORKDIR":
            self.workdir = rest
        elif keyword == "ENTRYPOINT":
            self.entrypoint = json.loads(rest)
        elif keyword != "RUN" or self.final:
            raise BuildFailed(
                f"Dockerfile: {keyword} {rest!r}: the image tar cannot follow this; teach tests/testbed/images.py"
            )

    def _copy(self, rest: str) -> None:
        if rest.startswith("--from="):
            return  # carries over what the build stage has gathered
        source, target = rest.split()
        if source.endswith(".txt"):
            self.requirements = source
        else:
            self.copies[source] = target

    def recipe(self) -> Recipe:
        missing = [name for name in ("requirements", "copies", "user", "entrypoint") if not getattr(self, name)]
        if missing:
            raise BuildFailed(f"Dockerfile says nothing about: {', '.join(missing)}")
        return Recipe(
            python=self.args["PYTHON_VERSION"],
            suite=self.args["DEBIAN_SUITE"],
            requirements=self.requirements,
            copies=self.copies,
            env=self.env,
            labels=self.labels,
            user=self.user,
            workdir=self.workdir,
            entrypoint=self.entrypoint,
        )


def image_config(recipe: Recipe) -> dict[str, object]:
    """The runtime part of the image's configuration, as a build of the Dockerfile would write it."""
    path = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "User": recipe.user,
        "Env": [path, *(f"{name}={value}" for name, value in recipe.env.items())],
        "Labels": recipe.labels,
        "WorkingDir": recipe.workdir,
        "Entrypoint": recipe.entrypoint,
    }
