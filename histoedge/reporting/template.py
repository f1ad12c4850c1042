"""Templates of pages; all share one style sheet and load nothing from a network."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def render(package: str, **values: Any) -> str:
    """Return ``page.html.j2`` of ``package`` rendered with these values; all values are escaped."""
    packages = (package, __package__)  # this package contains the style sheet
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "") for name in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(**values)
