"""Renders one of the package's templates. Everything that a user may have named is escaped.

A page carries one script, our own, and a policy that lets the browser run that one alone and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from boresight import __version__


def page(template: str, **values: Any) -> str:
    """Render one of the package's templates; a value that a template asks for and nobody gives is an error."""
    environment = Environment(
        loader=PackageLoader("boresight.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = scripts(getattr(values.get("browser"), "data", None) is not None)
    own = {"version": __version__, "script": script, "script_hash": script_hash(script)}
    return environment.get_template(template).render(**own, **values)


@cache
def scripts(browsing: bool) -> Markup:
    """The script of a page: light and dark, and what is needed to browse images. Files follow each other by name."""
    folder = resources.files("boresight.report") / "templates" / "script"
    files = sorted((f for f in folder.iterdir() if browsing or f.name.startswith("0-")), key=lambda f: f.name)
    return Markup("\n").join(Markup(file.read_text(encoding="utf-8")) for file in files)


def script_hash(script: str) -> str:
    """What the page's policy names: no other script runs in it, whatever the names in it say."""
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
