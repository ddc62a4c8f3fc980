"""Turns the cross-references of docstrings (:func:`name`) into links of the site, or into code where nothing is linked.

Read by mkdocstrings through griffe (see mkdocs.yml). A name of ours that is documented nowhere becomes a link as well,
so that the build, in which a warning is an error, tells which docstring names something that is no longer there.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, GriffeLoader, Module, Object

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?([\w.]+)`")


def linked(text: str, obj: Object) -> str:
    """``text`` with every role as a Markdown link; names without the package are looked up from ``obj`` outwards."""

    def link(found: re.Match[str]) -> str:
        name = found[1]
        if any(part.startswith("_") for part in name.split(".")):
            return f"`{name}`"
        target = name if name.startswith("boresight.") else _looked_up(name, obj)
        return f"[`{name}`][{_shown(target, obj.package)}]" if target.startswith("boresight.") else f"`{name}`"

    return ROLE.sub(link, text)


def _looked_up(name: str, obj: Object) -> str:
    """The full path of a name as the module of ``obj`` knows it; the name itself where it is not one of ours."""
    first, _, rest = name.partition(".")
    scope = obj.module if first in obj.module.members else obj
    if first not in scope.members:
        return name
    path = scope.members[first].canonical_path
    return f"{path}.{rest}" if rest else path


def _shown(path: str, package: Object) -> str:
    """The path; of a value without a docstring, which has no place of its own, the path of what it belongs to."""
    try:
        found = package[path.partition(".")[2]]
    except KeyError:
        return path  # the build tells of it
    return found.parent.path if found.is_attribute and found.docstring is None and found.parent else path


class Roles(Extension):
    """Rewrites every docstring of a package when it has been loaded."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """Rewrite the docstrings of ``pkg``."""
        self._rewrite(pkg)

    def _rewrite(self, obj: Object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = linked(obj.docstring.value, obj)
        for member in obj.members.values():
            if not member.is_alias:
                self._rewrite(member)  # type: ignore[arg-type]
