"""Renders one of the package's templates. Everything that a user may have named is escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

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
    return environment.get_template(template).render(version=__version__, **values)
