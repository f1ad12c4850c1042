"""Templates of pages; all share one style sheet and ask nothing of any network."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def render(package: str, **values: Any) -> str:
    """The page of ``package``, its ``page.html.j2``, with these values; every value is escaped."""
    packages = (package, __package__)  # the style sheet lies in this one
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "") for name in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(**values)
