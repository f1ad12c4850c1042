"""Templates of pages; all share one style sheet and ask nothing of any network."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(name: str, **values: Any) -> str:
    """A template of this package with these values; every value is escaped."""
    environment = Environment(
        loader=PackageLoader("histoedge.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)
